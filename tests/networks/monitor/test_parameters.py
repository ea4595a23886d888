"""How far parameters turned between two looks."""

import math

import pytest
import torch
from torch import nn

from ketwork.networks.monitor.parameters import ENTRIES, Parameters, sine


def test_the_sine_is_that_of_the_angle():
    before, after = torch.tensor([3.0, 0.0, 0.0]).double(), torch.tensor([1.0, 1.0, 1.0]).double()
    assert sine(before, after).value == pytest.approx(math.sqrt(2 / 3))
    assert sine(before, -2 * before).value == 0
    assert sine(before, torch.tensor([0.0, 5.0, 0.0]).double()).value == pytest.approx(1)
    assert math.isnan(sine(before, 0 * before))
    assert math.isnan(sine(before, torch.tensor([math.nan, 0, 0]).double()))


def test_weight_decay_alone_is_no_change_and_a_step_is():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    parameters = Parameters(net, 0)
    layers = ["0", "1", "2", "(model)"]
    assert all(map(math.isnan, parameters.changes(layers).values()))
    with torch.no_grad():
        for p in net[0].parameters():
            p.mul_(0.9)
        old = torch.cat([p.reshape(-1).clone() for p in net[2].parameters()])
        net[2].weight[0, 0] += 0.5
        new = torch.cat([p.reshape(-1) for p in net[2].parameters()])
    changes = parameters.changes(layers)
    cosine = float(nn.functional.cosine_similarity(old, new, dim=0))
    assert changes["0"].value == pytest.approx(0, abs=1e-7)
    assert changes["2"].value == pytest.approx(math.sqrt(1 - cosine**2), rel=1e-4)
    assert math.isnan(changes["1"])
    assert changes["(model)"] > 0


def test_a_draw_of_many_entries_covers_the_true_change():
    torch.manual_seed(1)
    net = nn.Linear(400, 300)
    assert net.weight.numel() > 4 * ENTRIES
    before = net.weight.detach().clone(), net.bias.detach().clone()
    watching = [Parameters(net, seed) for seed in range(40)]
    for each in watching:
        each.changes(["(model)"])
    with torch.no_grad():
        net.weight += 0.01 * torch.randn_like(net.weight) * (1 + 3 * (torch.rand_like(net.weight) < 0.1))
        net.bias += 0.01 * torch.randn_like(net.bias)
    joined = [
        torch.cat([w.reshape(-1), b]).double() for w, b in (before, (net.weight.detach(), net.bias.detach()))
    ]
    truth = sine(*joined).value
    z = [(e.value - truth) / e.stderr for e in (each.changes(["(model)"])["(model)"] for each in watching)]
    assert max(map(abs, z)) < 3.5
    assert 0.6 < math.sqrt(sum(x * x for x in z) / len(z)) < 1.4


def test_frozen_parameters_do_not_count():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[0].requires_grad_(False)
    parameters = Parameters(net, 0)
    parameters.changes(["0", "1"])
    with torch.no_grad():
        net[1].weight.add_(torch.randn(3, 3))
    changes = parameters.changes(["0", "1"])
    assert math.isnan(changes["0"])
    assert changes["1"] > 0
