"""State matching: reaches what the network can hold, and its infidelity is the true one."""

import pytest
import torch

from ketwork import waves
from ketwork.quantum import Ket, random_ket

ISING = waves.ising(waves.chain(8), 1.0)
GROUND = Ket(waves.exact.ground_state_vector(ISING), ISING.space.shape)


def infidelity(wave: waves.Wave, ket: Ket) -> float:
    return 1 - abs(complex((wave.ket().amplitudes.conj() * ket.amplitudes).sum())) ** 2


@pytest.mark.parametrize("n_samples", [None, 504])
def test_a_network_comes_to_a_ground_state_given_as_a_ket(n_samples) -> None:
    run = waves.match(GROUND, waves.Wave(waves.RBM(2), ISING.space), steps=40, n_samples=n_samples)
    assert infidelity(run.wave, GROUND) < 5e-5
    assert float(run.energy) == pytest.approx(infidelity(run.wave, GROUND), abs=1e-6)
    assert run.history[0].energy > 0.5
    assert len(run.history) == 40


def test_a_random_complex_state_is_matched_to_rounding_by_a_network_that_can_hold_it() -> None:
    ket = random_ket(16, dims=(2,) * 4, dtype=torch.complex128, seed=1)
    wave = waves.Wave(waves.RBM(8, dtype=torch.complex128, std=0.1), waves.spins(4))
    assert waves.match(ket, wave, steps=100, n_samples=None).energy < 1e-12


def test_a_wave_is_matched_on_samples_of_both_alone(monkeypatch) -> None:
    """Neither is ever listed: what comes out agrees with the sum over all states, within its error."""
    target = waves.Wave(waves.RBM(1, std=0.3), ISING.space, seed=3)
    wave = waves.Wave(waves.RBM(2), ISING.space, seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(waves.Wave, "amplitudes", lambda self: pytest.fail("listed"))
        run = waves.match(target, wave, steps=40, n_samples=504, seed=1)
    exact = infidelity(wave, target.ket())
    assert exact < 2e-3
    assert abs(float(run.energy) - exact) < 4 * run.energy.stderr + 1e-6
    again = waves.match(
        target, waves.Wave(waves.RBM(2), ISING.space, seed=0), steps=40, n_samples=504, seed=1
    )
    assert float(again.energy) == float(run.energy)


def test_a_ket_too_large_to_be_summed_over_is_drawn_from(monkeypatch) -> None:
    monkeypatch.setattr("ketwork.waves.matching.SUMMED", 16)
    run = waves.match(GROUND, waves.Wave(waves.RBM(2), ISING.space), steps=40, n_samples=504)
    exact = infidelity(run.wave, GROUND)
    assert exact < 1e-4
    assert 0 < abs(float(run.energy) - exact) < 4 * run.energy.stderr + 1e-6


def test_signs_that_a_real_network_cannot_have_are_refused() -> None:
    heisenberg = waves.heisenberg(waves.chain(6), sign_rule=False)
    full = torch.zeros(64, dtype=torch.float64)
    full[heisenberg.space.keys] = waves.exact.ground_state_vector(heisenberg)
    ground = Ket(full, (2,) * 6)
    with pytest.raises(ValueError, match="must be able to have the target's signs"):
        waves.match(ground, waves.Wave(waves.RBM(), heisenberg.space), steps=1)
    signs = waves.sign_rule(heisenberg)
    ruled = waves.Wave(waves.RBM(3, dtype=torch.float64), heisenberg.space, signs=signs)
    assert waves.match(ground, ruled, steps=60, n_samples=None).energy < 1e-4


def test_bad_input() -> None:
    wave = waves.Wave(waves.RBM(), ISING.space)
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        waves.match(GROUND, wave, steps=0)
    with pytest.raises(ValueError, match="`n_samples` must be at least 1"):
        waves.match(GROUND, wave, n_samples=0)
    with pytest.raises(ValueError, match="must be on the same space"):
        waves.match(waves.Wave(waves.RBM(), waves.spins(4)), wave)
