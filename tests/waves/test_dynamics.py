"""Projected dynamics against the exact exponential, where the network can follow exactly and where it can nearly."""

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


def test_bad_input() -> None:
    operator = waves.ising(waves.chain(4), 1.0)
    real = waves.Wave(waves.RBM(), operator.space)
    with pytest.raises(ValueError, match="needs complex amplitudes"):
        waves.evolve(operator, real, 0.1, steps=1)
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        waves.evolve(operator, real, 0.1, steps=0, imaginary=True)
    with pytest.raises(ValueError, match="must be Hermitian"):
        waves.evolve(waves.PauliSum(operator.space, {"X0": 1j}), real, 0.1, steps=1)
