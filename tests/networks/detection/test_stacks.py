"""Layers that are scored together have the scores that each has alone."""

import torch
from torch import nn

import ketwork as kw
from ketwork.networks.detection import METHODS
from ketwork.networks.detection.references import mean_of_positions, stacked
from ketwork.networks.moments import pooled


def test_layers_of_one_shape_are_scored_together_as_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 4)).double()
    study = kw.study(network, (torch.randn(900, 5, dtype=torch.float64), torch.arange(900) % 3))
    references = study.detector(layers="*").references
    stacks = stacked(references, [METHODS] * 5)
    assert [stack.places for stack in stacks] == [(0, 1, 2, 3), (4,)]
    kets = nn.functional.normalize(torch.randn(4, 20, 7, dtype=torch.float64), dim=-1)
    together, nearest = stacks[0].scores(kets, METHODS)
    for place in range(4):
        alone, near = references[place].scores(kets[place], METHODS)
        assert torch.equal(near, nearest[place])
        for method in METHODS:
            torch.testing.assert_close(together[method][place], alone[method], rtol=1e-10, atol=1e-10)


def test_wide_layers_are_not_copied() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 1025), nn.Tanh())
    study = kw.study(network, (torch.randn(200, 3), torch.arange(200) % 2))
    references = study.detector("mahalanobis", layers="*").references
    stacks = stacked(references, [("mahalanobis",)] * 2)
    assert [stack.places for stack in stacks] == [(0,), (1,)]
    assert stacks[0].classes.whitening.data_ptr() == references[0].classes.whitening.data_ptr()


def test_the_mean_over_existing_positions_is_that_of_a_study_also_beside_nan() -> None:
    values = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    present = torch.arange(6) < torch.tensor([6, 3, 1, 0])[:, None]
    torch.testing.assert_close(
        mean_of_positions(values, present), pooled(values, present), rtol=1e-12, atol=1e-14
    )
    torch.testing.assert_close(mean_of_positions(values, None), values.mean(1))
    values[1, 4] = torch.nan  # padding
    found = mean_of_positions(values, present)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, pooled(values, present), rtol=0, atol=0)
