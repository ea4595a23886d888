"""Known answers: independent Gaussians, the chance level of each measure, networks that must agree."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.measures.similarity import null_root_fidelity

from . import reference
from .test_formulas import compared


def test_independent_gaussians_are_unrelated_where_the_biased_measure_says_0_909() -> None:
    debiased, biased = [], []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        found, _ = compared([torch.randn(100, 1000, generator=generator) for _ in range(2)])
        debiased.append(found.cka.iloc[0, 1])
        biased.append(found.cka_biased.iloc[0, 1])
    assert max(map(abs, debiased)) < 0.02
    assert min(debiased) < 0  # chance goes both ways: nothing is clamped
    assert np.mean(biased) == pytest.approx(0.909, abs=0.003)


@pytest.mark.parametrize(("n", "expected"), [(32, 0.200), (64, 0.111), (128, 0.059), (256, 0.030)])
def test_biased_cka_of_independent_gaussians(n: int, expected: float) -> None:
    values = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        found, _ = compared([torch.randn(n, 8, generator=generator) for _ in range(2)], measures=["cka"])
        values.append(found.cka_biased.iloc[0, 1])
        assert values[-1] > found.cka.iloc[0, 1]
    assert np.mean(values) == pytest.approx(expected, rel=0.06)
    assert math.sqrt(8 * 8 / (n + 8) ** 2) == pytest.approx(expected, abs=5e-4)


def test_root_fidelity_is_the_quantum_rooms() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, d, generator=generator, dtype=torch.float64) for d in (5, 30))
    found, _ = compared([x, y], center=False)
    rho, sigma = (kw.Density.from_factor((layer / layer.norm()).mT) for layer in (x, y))
    expected = float(kw.root_fidelity(rho, sigma))
    assert found.bures.iloc[0, 1] == pytest.approx(expected, abs=1e-7)
    assert found.bures_distance.iloc[0, 1] == pytest.approx(math.acos(expected), abs=1e-6)


@pytest.mark.parametrize(("n", "d", "e"), [(200, 20, 40), (100, 100, 300), (60, 400, 400), (300, 150, 30)])
def test_null_of_bures_is_what_shuffled_samples_give(n: int, d: int, e: int) -> None:
    generator = torch.Generator().manual_seed(7)
    slope = torch.logspace(0, -1.5, d)
    x = torch.randn(n, d, generator=generator) * slope
    y = torch.randn(n, e, generator=generator)
    found, _ = compared([x, y])
    shuffled = [
        reference.root_fidelity(
            x.double().numpy(), y[torch.randperm(n, generator=generator)].double().numpy()
        )
        for _ in range(5)
    ]
    assert found.bures_null.iloc[0, 1] == pytest.approx(np.mean(shuffled), rel=0.02)


def test_null_of_bures_in_closed_form() -> None:
    # A projector on r of m dimensions against the full flat state: ‖P/√r · 1/√m‖_* = √(r/m), however it lies.
    for m, r in ((100, 100), (100, 25), (400, 16)):
        spectra = [torch.ones(r), torch.ones(m)]
        assert float(null_root_fidelity(spectra, m)[0, 1]) == pytest.approx(math.sqrt(r / m), rel=2e-3)
    # Two states of rank 1: (2/π)(4/3)/√m from the formula.
    assert float(null_root_fidelity([torch.ones(1)] * 2, 100)[0, 0]) == pytest.approx(
        8 / (30 * math.pi), rel=2e-3
    )


def test_identical_models_agree_layer_by_layer(chain: nn.Module) -> None:
    torch.manual_seed(5)
    found = kw.compare(chain, torch.randn(300, 6), chain)
    for frame in (found.cka, found.cka_biased, found.bures, found.r2, found.r2_reverse):
        np.testing.assert_allclose(np.diag(frame), 1, atol=1e-6)
    assert found.cka.iloc[0, 1] < 0.9999
    twice = kw.compare(chain, torch.randn(300, 6))
    np.testing.assert_array_equal(np.diag(twice.cka), 1)


def test_a_rotation_undone_in_the_next_layer_changes_nothing() -> None:
    torch.manual_seed(6)
    plain = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.Tanh())
    turned = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.Tanh())
    turned.load_state_dict(plain.state_dict())
    rotation = torch.linalg.qr(torch.randn(9, 9))[0]
    with torch.no_grad():
        turned[0].weight.copy_(rotation @ plain[0].weight)
        turned[0].bias.copy_(rotation @ plain[0].bias)
        turned[1].weight.copy_(plain[1].weight @ rotation.T)
    data = torch.randn(500, 6)
    assert not torch.allclose(plain[0](data), turned[0](data), atol=0.1)
    found = kw.compare(plain, data, turned)
    for frame in (found.cka, found.bures, found.r2, found.r2_reverse):
        np.testing.assert_allclose(np.diag(frame), 1, atol=1e-6)
