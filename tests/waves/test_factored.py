"""Derivatives kept as factors give what the derivatives themselves give."""

import pytest
import torch

from ketwork import waves
from ketwork.waves.factored import FactoredRows
from ketwork.waves.reconfiguration import factored_rows, natural_step, rows

SPACE = waves.electrons(4, 2, 2)


def made(weighted: bool) -> tuple[FactoredRows, torch.Tensor, torch.Tensor, torch.Tensor]:
    wave = waves.Wave(waves.Backflow((6, 5), determinants=3, std=0.3), SPACE, seed=1)
    x = SPACE.states(torch.float64)[:20]
    generator = torch.Generator().manual_seed(0)
    energies = torch.randn(20, dtype=torch.float64, generator=generator)
    weights = torch.rand(20, dtype=torch.float64, generator=generator) if weighted else None
    both = factored_rows(wave, x, energies, weights)
    assert both is not None
    o, epsilon = rows(wave, x, energies, weights)
    return both[0], both[1], o, epsilon


@pytest.mark.parametrize("weighted", [False, True])
def test_they_multiply_and_have_the_gram_matrix_of_the_rows(weighted) -> None:
    factored, mine, o, epsilon = made(weighted)
    assert factored.shape == o.shape
    assert torch.allclose(mine, epsilon)
    assert torch.allclose(factored.dense(), o)
    assert torch.allclose(factored.gram(), o @ o.T)
    vector = torch.linspace(-1, 1, o.shape[1], dtype=torch.float64)
    assert torch.allclose(factored @ vector, o @ vector)
    assert torch.allclose(factored.back(epsilon), o.T @ epsilon)


@pytest.mark.parametrize("solver", ["auto", "parameters"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_natural_step_is_the_same(solver, momentum) -> None:
    factored, mine, o, epsilon = made(True)
    before = torch.linspace(-1, 1, o.shape[1], dtype=torch.float64)
    given = {"shift": 1e-2, "solver": solver, "previous": before, "momentum": momentum}
    assert torch.allclose(
        natural_step(factored, mine, **given), natural_step(o, epsilon, **given), atol=1e-10
    )


def test_nodes_are_dropped_with_their_weight() -> None:
    wave = waves.Wave(waves.Slater(jastrow=False, std=0.0), SPACE)
    wave.module.m[0].data[3] = 0  # one fermion never on the last site
    x = SPACE.states(torch.float64)
    energies = torch.arange(len(x), dtype=torch.float64)
    weights = wave.amplitudes() ** 2 + 1e-30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves.Wave, "count", property(lambda self: 100))
        both = factored_rows(wave, x, energies, weights)
    assert both is not None
    o, epsilon = rows(wave, x, energies, weights)
    assert both[0].shape == o.shape
    assert o.shape[0] < len(x)
    assert torch.allclose(both[0].dense(), o)
    assert torch.allclose(both[1], epsilon)


def test_networks_without_factors_and_many_samples_take_the_rows() -> None:
    wave = waves.Wave(waves.RBM(), waves.spins(4))
    x = wave.space.states()
    assert factored_rows(wave, x[:2], torch.zeros(2), None) is None
    fermions = waves.Wave(waves.Slater(), SPACE)
    assert factored_rows(fermions, SPACE.states(torch.float64), torch.zeros(36), None) is not None
    assert factored_rows(fermions, SPACE.states(torch.float64).repeat(2, 1), torch.zeros(72), None) is None
