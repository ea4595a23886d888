"""Projected dynamics against the exact exponential, where the network can follow exactly and where it can nearly."""

import math

import pytest
import torch
from torch import nn

from ketwork import waves


class Table(nn.Module):
    """One parameter an amplitude: it can follow any evolution exactly."""

    holomorphic = True

    def __init__(self, space: waves.Space) -> None:
        super().__init__()
        self.space = space
        start = torch.randn(space.size, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
        self.logs = nn.Parameter(0.5 * start)

    def forward(self, x):
        return self.logs[self.space.index(x)]

    def jacobian(self, x):
        return nn.functional.one_hot(self.space.index(x), self.space.size).to(torch.complex128)


class Pairs(nn.Module):
    """The same table as real parameters with complex output: not holomorphic."""

    def __init__(self, space: waves.Space) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.view_as_real(Table(space).logs.detach()).clone())
        self.space = space

    def forward(self, x):
        return torch.view_as_complex(self.inner)[self.space.index(x)]


def infidelity(wave: waves.Wave, psi: torch.Tensor) -> float:
    return 1 - float((wave.amplitudes().conj() * psi).sum().abs() ** 2)


@pytest.mark.parametrize("imaginary", [False, True])
@pytest.mark.parametrize("make", [Table, Pairs])
def test_a_table_follows_exactly(make, imaginary) -> None:
    operator = waves.ising(waves.chain(4), 0.7)
    wave = waves.Wave(make(operator.space), operator.space)
    exact = waves.exact.evolve(operator, wave.amplitudes(), 0.3, imaginary=imaginary)
    waves.evolve(operator, wave, 0.3, steps=30, imaginary=imaginary)
    assert infidelity(wave, exact) < 1e-6


def test_a_quench_of_the_ising_chain_by_a_complex_rbm() -> None:
    operator = waves.ising(waves.chain(6), 0.5)
    wave = waves.Wave(waves.RBM(alpha=3, std=0.1, dtype=torch.complex128), operator.space)
    exact = waves.exact.evolve(operator, wave.amplitudes(), 0.3)
    energies = []

    def watch(time: float, moved: waves.Wave) -> None:
        samples = waves.FullSum().sample(moved, 1, seed=torch.Generator())
        energies.append(waves.expect(operator, moved, samples).value)

    waves.evolve(operator, wave, 0.3, steps=60, on_step=watch)
    assert infidelity(wave, exact) < 2e-3
    assert len(energies) == 60
    assert max(energies) - min(energies) < 5e-3 * abs(energies[0])  # real time conserves the energy


def test_imaginary_time_lowers_the_energy_of_a_real_wave_to_the_ground_state() -> None:
    operator = waves.ising(waves.chain(6), 1.0)
    wave = waves.Wave(waves.RBM(alpha=2, std=0.1, dtype=torch.float64), operator.space)
    exact = waves.exact.evolve(operator, wave.amplitudes(), 0.2, imaginary=True)
    waves.evolve(operator, wave, 0.2, steps=20, imaginary=True, cutoff=1e-6)
    assert infidelity(wave, exact) < 1e-3


def quench(sites: waves.Lattice, **settings) -> tuple[float, waves.dynamics.Evolution]:
    operator = waves.ising(sites, 1.0)
    wave = waves.Wave(waves.RBM(alpha=3, std=0.1, dtype=torch.complex128), operator.space)
    exact = waves.exact.evolve(operator, wave.amplitudes(), 0.5)
    went = waves.evolve(operator, wave, 0.5, **settings)
    return infidelity(wave, exact), went


def test_steps_are_as_long_as_their_error_allows() -> None:
    """A network that can follow exactly: the angle to the exact state is nearly the sum of the errors."""
    lengths = []
    for tolerance in (1e-2, 1e-3):
        off, went = quench(waves.square(2, 2), tolerance=tolerance)
        assert max(went.errors) <= tolerance
        assert max(went.residuals) < 1e-6
        assert math.asin(math.sqrt(off)) < 2 * sum(went.errors)
        assert went.times[-1] == 0.5
        assert list(went.times) == sorted(went.times)
        energies = [float(e) for e in went.energies]
        assert max(energies) - min(energies) < 2 * tolerance * abs(energies[0])
        lengths.append(len(went.times) + went.rejected)
    assert 1.5 < lengths[1] / lengths[0] < 4  # third order: 10^(1/3) = 2.2


def test_a_quench_in_two_dimensions_on_samples_alone(monkeypatch) -> None:
    lattice = waves.square(2, 3)
    operator = waves.ising(lattice, 1.0)
    wave = waves.Wave(waves.RBM(alpha=3, std=0.1, dtype=torch.complex128), operator.space)
    begun = wave.amplitudes()
    exact = waves.exact.evolve(operator, begun, 0.3)
    with monkeypatch.context() as patch:
        patch.setattr(waves.Wave, "amplitudes", lambda self: pytest.fail("listed"))
        went = waves.evolve(operator, wave, 0.3, tolerance=5e-3, n_samples=1500, seed=1)
    assert infidelity(wave, exact) < 0.015 < 0.1 * (1 - float((begun.conj() @ exact).abs() ** 2))
    assert max(went.errors) <= 5e-3
    assert all(
        abs(e - went.energies[0]) < 5 * math.hypot(e.stderr, went.energies[0].stderr) for e in went.energies
    )


def test_fewer_samples_than_parameters_give_the_velocity_of_the_other_form() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, count in ((40, 12), (12, 40)):
        o = torch.randn(rows, count, dtype=torch.complex128, generator=generator)
        o = o - o.mean(0)
        driven = torch.randn(rows, dtype=torch.complex128, generator=generator)
        expected = torch.linalg.pinv(o, rtol=1e-4) @ (driven - driven.mean())
        found = waves.dynamics._solved(o, driven - driven.mean(), 1e-9, None)
        assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(("size", "share"), [(2.0, 0.9), (0.01, 0.1)])
def test_forces_lost_in_noise_move_nothing(size, share) -> None:
    """One direction, of weights ±1/√n; the force and its standard error by their definitions."""
    n, generator = 400, torch.Generator().manual_seed(0)
    o = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(n // 2)[:, None] / n**0.5
    driven = size * o[:, 0] + torch.randn(n, dtype=torch.float64, generator=generator) / n**0.5
    driven = driven - (o[:, 0] @ driven - size) * o[:, 0]
    found = float(waves.dynamics._solved(o, driven, 1e-9, torch.full((n,), 1 / n, dtype=torch.float64)))
    noise = float((n * o[:, 0] * driven).std(correction=0)) / n**0.5
    assert found == pytest.approx(size / (1 + (0.5 * noise / size) ** 6), rel=1e-9)
    assert (found > share * size) == (size > 1)


def test_bad_input() -> None:
    operator = waves.ising(waves.chain(4), 1.0)
    real = waves.Wave(waves.RBM(), operator.space)
    with pytest.raises(ValueError, match="needs complex amplitudes"):
        waves.evolve(operator, real, 0.1, steps=1)
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        waves.evolve(operator, real, 0.1, steps=0, imaginary=True)
    fits = waves.Wave(waves.RBM(dtype=torch.complex128), operator.space)
    for given in ({}, {"steps": 1, "tolerance": 0.1}):
        with pytest.raises(ValueError, match="Give either `steps`"):
            waves.evolve(operator, fits, 0.1, **given)
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        waves.evolve(operator, fits, 0.1, tolerance=0.0)
    with pytest.raises(ValueError, match="`n_samples` must be at least 2"):
        waves.evolve(operator, fits, 0.1, steps=1, n_samples=1)
    with pytest.raises(ValueError, match="must be larger than 1e-300 here"):
        waves.evolve(operator, fits, 0.1, tolerance=1e-300)
    with pytest.raises(ValueError, match="must be Hermitian"):
        waves.evolve(waves.PauliSum(operator.space, {"X0": 1j}), real, 0.1, steps=1)
