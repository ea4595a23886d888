"""Fidelities from samples: unbiased, also for states with other nodes, and with errors that fall with 1 − F."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ketwork import waves
from ketwork.quantum import Ket, random_ket


class Held(nn.Module):
    """The log-amplitudes themselves as parameters."""

    def __init__(self, values: torch.Tensor, space: waves.Space) -> None:
        super().__init__()
        self.space = space
        self.logs = nn.Parameter(torch.log(values.to(torch.complex128)))

    def forward(self, x):
        return self.logs[self.space.index(x)]


SPACE = waves.spins(4)


def held(values: torch.Tensor) -> waves.Wave:
    return waves.Wave(Held(values, SPACE), SPACE)


def drawn(wave: waves.Wave, count: int, seed: int) -> waves.Samples:
    rows = torch.multinomial(
        wave.amplitudes().abs() ** 2, count, True, generator=torch.Generator().manual_seed(seed)
    )
    return waves.Samples(SPACE.rows(rows, wave.dtype)[:, None])


def pair(nodes: bool, apart: float) -> tuple[waves.Wave, waves.Wave, float]:
    one = random_ket(16, dtype=torch.complex128, seed=1).amplitudes.clone()
    two = one + apart * random_ket(16, dtype=torch.complex128, seed=2).amplitudes
    if nodes:
        one[:4], two[12:] = 0, 0
    exact = abs(complex((one.conj() * two).sum())) ** 2 / float(one.norm() ** 2 * two.norm() ** 2)
    return held(one), held(two), exact


@pytest.mark.parametrize(("nodes", "apart"), [(False, 0.8), (True, 0.8), (False, 0.05)])
def test_few_samples_have_the_right_mean_and_error(nodes, apart) -> None:
    one, two, exact = pair(nodes, apart)
    found = [waves.fidelity(one, two, drawn(one, 60, k), drawn(two, 60, 1000 + k)) for k in range(100)]
    values = np.array([float(m.value) for m in found])
    spread = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - exact) < 3.5 * spread
    assert np.mean([float(m.stderr) for m in found]) == pytest.approx(values.std(), rel=0.35)


def test_errors_fall_with_the_infidelity() -> None:
    relative = []
    for apart in (0.3, 0.03):
        one, two, exact = pair(False, apart)
        found = waves.fidelity(one, two, drawn(one, 4000, 0), drawn(two, 4000, 1))
        relative.append(float(found.stderr) / (1 - exact))
    assert relative[1] < 1.5 * relative[0] < 0.2


def test_a_ket_is_summed_over_or_drawn_from() -> None:
    wave = waves.Wave(waves.RBM(std=0.2), waves.spins(4, magnetization=0), seed=1)
    full = torch.zeros(16, dtype=torch.float64)
    full[wave.space.keys] = random_ket(6, dtype=torch.float64, seed=3).amplitudes
    ket = Ket(full, (2,) * 4)
    exact = float(wave.ket().overlap(ket) ** 2)
    samples = waves.FullSum().sample(wave, 1)
    assert float(waves.fidelity(wave, ket, samples).value) == pytest.approx(exact, abs=1e-12)
    with pytest.raises(
        ValueError, match=r"must lie in the wave's space to be held against it, but .* does not"
    ):
        waves.fidelity(wave, random_ket(16, seed=0), samples)
    with pytest.raises(ValueError, match=r"must be one vector of 2\^4 amplitudes"):
        waves.fidelity(wave, random_ket(8, seed=0), samples)
    with pytest.raises(ValueError, match="`other` must be samples of the second wave"):
        waves.fidelity(wave, wave, samples)
