import math

import numpy as np
import pytest
import scipy.linalg
import torch

from ketwork import waves
from ketwork.waves import exact

ENERGIES = [
    (waves.ising(waves.chain(14), 1.0), -17.8628085408, 1e-9),
    (waves.heisenberg(waves.square(4)), -44.9139328, 1e-6),
    (waves.j1j2(waves.square(4), j2=0.5), -33.8316934, 1e-6),
]


@pytest.mark.parametrize(
    ("operator", "energy", "within"), ENERGIES, ids=["ising14", "heisenberg4x4", "j1j2-4x4"]
)
def test_published_energies(operator, energy, within) -> None:
    assert exact.ground_energy(operator) == pytest.approx(energy, abs=within)


@pytest.mark.slow
@pytest.mark.parametrize(("length", "energy"), [(16, -28.5691854425), (20, -35.6175461195)])
def test_heisenberg_chains(length, energy) -> None:
    assert exact.ground_energy(waves.heisenberg(waves.chain(length))) == pytest.approx(energy, abs=1e-9)


def test_the_free_fermion_form() -> None:
    assert exact.ising_chain_energy(20) == pytest.approx(-2 / math.sin(math.pi / 40), abs=1e-12)
    assert exact.ising_chain_energy(20) == pytest.approx(-25.4909896864, abs=1e-10)
    for field in (0.0, 0.3, 1.0, 1.7):
        energy = exact.ground_energy(waves.ising(waves.chain(8), field, coupling=0.8))
        assert exact.ising_chain_energy(8, field, 0.8) == pytest.approx(energy, abs=1e-10)
    with pytest.raises(ValueError, match="must be even"):
        exact.ising_chain_energy(7)


def test_spectrum_of_two_spins_is_singlet_and_triplet() -> None:
    pair = waves.heisenberg(waves.chain(2, periodic=False), magnetization=None)
    np.testing.assert_allclose(exact.spectrum(pair), [-3, 1, 1, 1], atol=1e-12)


def test_lanczos_and_dense_agree_on_several_levels() -> None:
    operator = waves.heisenberg(waves.chain(8))
    values, vectors = exact.lowest(operator, 4)
    np.testing.assert_allclose(values, exact.spectrum(operator)[:4], atol=1e-10)
    np.testing.assert_allclose(operator.to_sparse() @ vectors, vectors * values, atol=1e-8)


def test_bosons_that_do_not_repel_condense() -> None:
    free = waves.bose_hubbard(waves.chain(4), interaction=0.0, hopping=1.0, most=3, particles=3)
    assert exact.ground_energy(free) == pytest.approx(-2 * 3)  # each at the bottom of the band, −2t


def test_spin_one_pair() -> None:
    pair = waves.spin_one_heisenberg(waves.chain(2, periodic=False), magnetization=None)
    np.testing.assert_allclose(exact.spectrum(pair), [-2, -1, -1, -1, 1, 1, 1, 1, 1], atol=1e-12)


@pytest.mark.parametrize("imaginary", [False, True])
def test_evolution_against_the_dense_exponential(imaginary) -> None:
    operator = waves.ising(waves.chain(6), 0.8)
    start = torch.randn(64, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    start /= start.norm()
    matrix = operator.to_sparse().toarray()
    expected = scipy.linalg.expm((-0.7 if imaginary else -0.7j) * matrix) @ start.numpy()
    if imaginary:
        expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(
        exact.evolve(operator, start, 0.7, imaginary=imaginary).numpy(), expected, atol=1e-10
    )


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="must be Hermitian"):
        exact.ground_energy(waves.PauliSum(waves.spins(2), {"X0": 1j}))
    with pytest.raises(ValueError, match="at most 4096 states"):
        exact.spectrum(waves.ising(waves.chain(14), 1.0))
