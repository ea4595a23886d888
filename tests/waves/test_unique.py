"""Draws without replacement: distinct, unbiased, with errors that cover; from lists and from autoregressive
networks."""

import numpy as np
import pytest
import torch

from ketwork import waves
from ketwork.waves.objectives import local_of
from ketwork.waves.samplers.unique import inclusion

SPACE = waves.electrons(4, 2, 2)


def peaked() -> waves.Wave:
    return waves.Wave(waves.Slater(std=0.2), SPACE, seed=1)


def autoregressive(space: waves.Space = SPACE) -> waves.Wave:
    wave = waves.Wave(waves.MaskedDense(4, dtype=torch.float64), space, seed=2)
    wave.set_vector(2.0 * wave.vector())
    return wave


def test_as_many_as_the_space_has_are_a_full_sum() -> None:
    drawn = waves.WithoutReplacement().sample(peaked(), 36)
    assert drawn.complete
    assert float(drawn.weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("make", [peaked, autoregressive])
@pytest.mark.parametrize("count", [3, 12, 30])
def test_estimates_are_unbiased_and_their_errors_cover(make, count) -> None:
    wave = make()
    p = wave.amplitudes().abs().square()
    value = torch.randn(36, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    exact, sums, inside = float((p * value).sum()), [], []
    for seed in range(300):
        drawn = waves.WithoutReplacement().sample(wave, count, seed=seed)
        row = SPACE.index(drawn.flat)
        assert len(torch.unique(row)) == count
        sums.append(float((drawn.weights[0] * value[row]).sum()))
        found = waves.estimate(value[row][None], drawn.weights, inclusion=drawn.inclusion)
        inside.append(abs(float(found) - exact) <= 1.96 * found.stderr)
    assert abs(np.mean(sums) - exact) < 4 * np.std(sums) / 300**0.5
    if count > 3:  # of three, the error itself is hardly known
        assert np.mean(inside) > 0.88


def test_the_tree_of_an_autoregressive_network_draws_as_the_list_does() -> None:
    """How often each configuration is among five, by both ways."""
    wave, counts = autoregressive(), np.zeros((2, 36))
    generator = torch.Generator().manual_seed(0)
    repeats = 300
    with torch.no_grad():
        for _ in range(repeats):
            x, log, threshold = wave.module.draw_unique(5, generator=generator)
            assert float(threshold) < float("inf")
            counts[0, SPACE.index(x)] += 1
    torch.testing.assert_close(log, 2 * wave.log_amplitude(x).real)
    for seed in range(repeats):
        counts[1, SPACE.index(waves.WithoutReplacement().sample(wave, 5, seed=seed).flat)] += 1
    share = counts / repeats
    spread = np.sqrt(share.mean(0) * (1 - share.mean(0)) * 2 / repeats) + 1e-3
    assert (np.abs(share[0] - share[1]) < 4.5 * spread).all()


def test_all_of_a_small_tree() -> None:
    wave = autoregressive()
    with torch.no_grad():
        x, log, threshold = wave.module.draw_unique(100, generator=torch.Generator().manual_seed(0))
    assert len(torch.unique(x, dim=0)) == 36
    assert float(torch.exp(log).sum()) == pytest.approx(1)
    p, q = inclusion(log, threshold)
    assert bool((q == 1).all())
    torch.testing.assert_close(p.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_energies_of_some_rows_are_those_of_the_full_sum() -> None:
    H = waves.hubbard(waves.chain(4), 4.0)
    wave = waves.Wave(waves.Slater(std=0.3), H.space)
    full = waves.local_energies(H, wave, H.space.states(torch.float64))
    drawn = waves.WithoutReplacement().sample(wave, 20, seed=1)
    torch.testing.assert_close(local_of(H, wave, drawn).values, full[drawn.rows])
    torch.testing.assert_close(drawn.flat, H.space.states(torch.float64)[drawn.rows])


def test_a_large_space_of_an_autoregressive_network() -> None:
    H = waves.ising(waves.chain(24), 1.0)
    wave = waves.Wave(waves.MaskedDense(2), H.space)
    drawn = waves.WithoutReplacement().sample(wave, 300)
    assert drawn.flat.shape == (300, 24)
    assert len(torch.unique(drawn.flat, dim=0)) == 300
    run = waves.ground_state(H, wave, steps=25, n_samples=120, sampler=waves.WithoutReplacement(), final=2)
    assert float(run.energy) < -24


def test_a_large_space_of_another_network_is_refused() -> None:
    wave = waves.Wave(waves.RBM(), waves.spins(24))
    with pytest.raises(ValueError, match=r"an autoregressive network or at most 1048576 configurations"):
        waves.WithoutReplacement().sample(wave, 10)


def test_correlations_and_densities_of_draws_without_replacement() -> None:
    wave = peaked()
    exact = waves.magnetizations(waves.FullSum().sample(wave, 1)).value
    inside = []
    for seed in range(100):
        found = waves.magnetizations(waves.WithoutReplacement().sample(wave, 20, seed=seed))
        inside.append(((found.value - exact).abs() <= 2 * found.stderr + 1e-12).double().mean())
    assert np.mean(inside) > 0.9
