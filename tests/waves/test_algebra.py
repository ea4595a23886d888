"""Sums and products of operators against their matrices, of one kind and of two."""

import numpy as np
import pytest
import torch

from ketwork import waves
from ketwork.waves.algebra import Identity, Product, Sum

SPACE = waves.spins(4)
RNG = np.random.default_rng(0)


def dense(operator: waves.Operator) -> np.ndarray:
    return operator.to_sparse().toarray()


def local() -> waves.LocalSum:
    one, two = RNG.normal(size=(2, 2)), RNG.normal(size=(4, 4)) + 1j * RNG.normal(size=(4, 4))
    return waves.LocalSum(SPACE, [((1,), one), ((3, 0), two)])


PAULI = waves.PauliSum(SPACE, {"X0 Y1": 0.3 + 0.2j, "Z2": 1.0, "Y3 Z0": -0.7, "": 0.1, "X2 X3": 0.4})
OTHER = waves.PauliSum(SPACE, {"Y0": 1.5j, "Z1 X2": 0.3, "X0 X1 Y2 Z3": 0.8})
LOCAL = local()
LONG = waves.PauliSum(waves.spins(9), {"X0 X1 X2 X3 X4 X5 X6 X7 X8": 1.0, "Z4": 0.3})
MATRIX = waves.LocalSum(waves.spins(9), [((0, 8), RNG.normal(size=(4, 4)))])
PAIRS = [
    (PAULI, OTHER),
    (PAULI, LOCAL),
    (LOCAL, PAULI),
    (LOCAL, LOCAL),
    (Sum(SPACE, (PAULI, LOCAL)), OTHER),
    (OTHER, Product(SPACE, (LOCAL, PAULI))),
    (LONG, MATRIX),
    (MATRIX, LONG),
]


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda o: type(o).__name__)
def test_products_and_sums_are_those_of_the_matrices(a, b) -> None:
    np.testing.assert_allclose(dense(a @ b), dense(a) @ dense(b), atol=1e-12)
    np.testing.assert_allclose(dense(a + b), dense(a) + dense(b), atol=1e-12)
    np.testing.assert_allclose(dense(a - 2j * b), dense(a) - 2j * dense(b), atol=1e-12)
    np.testing.assert_allclose(dense((a @ b).adjoint()), (dense(a) @ dense(b)).conj().T, atol=1e-12)


@pytest.mark.parametrize(
    "operator", [PAULI, LOCAL, Sum(SPACE, (PAULI, LOCAL)), Product(SPACE, (PAULI, LOCAL))]
)
def test_numbers_adjoints_and_rotations(operator) -> None:
    one = np.eye(16)
    np.testing.assert_allclose(dense(operator + 2.5), dense(operator) + 2.5 * one, atol=1e-12)
    np.testing.assert_allclose(dense(1 - operator), one - dense(operator), atol=1e-12)
    np.testing.assert_allclose(dense(operator / 4), dense(operator) / 4, atol=1e-12)
    np.testing.assert_allclose(dense(sum([operator, operator])), 2 * dense(operator), atol=1e-12)
    np.testing.assert_allclose(dense(operator.adjoint()), dense(operator).conj().T, atol=1e-12)
    level = SPACE.level(SPACE.states())[:, [0, 2]].sum(1).numpy()
    turn = np.diag((-1.0) ** level)
    np.testing.assert_allclose(dense(operator.rotated([0, 2])), turn @ dense(operator) @ turn, atol=1e-12)
    hermitian = operator + operator.adjoint()
    assert hermitian.is_hermitian()
    assert not (operator @ operator + 1j * operator).is_hermitian()


def test_a_square_has_the_squares_of_the_eigenvalues_and_the_variance_of_a_state() -> None:
    H = waves.heisenberg(waves.chain(6))
    square = H @ H
    assert isinstance(square, waves.PauliSum)
    np.testing.assert_allclose(waves.exact.spectrum(square), np.sort(waves.exact.spectrum(H) ** 2), atol=1e-9)
    wave = waves.Wave(waves.RBM(std=0.3, dtype=torch.float64), H.space)
    samples = waves.FullSum().sample(wave, 1)
    energy = waves.expect(H, wave, samples)
    assert float(waves.expect(square, wave, samples)) - float(energy) ** 2 == pytest.approx(energy.variance)
    lazy = Product(H.space, (H, H))
    assert float(waves.expect(lazy, wave, samples)) == pytest.approx(
        float(waves.expect(square, wave, samples))
    )
    x = H.space.states(torch.float64)
    torch.testing.assert_close(waves.local_energies(lazy, wave, x), waves.local_energies(square, wave, x))


def test_bounds_and_widths_hold() -> None:
    for operator in (Sum(SPACE, (PAULI, PAULI.adjoint())), Product(SPACE, (OTHER.adjoint(), OTHER))):
        assert operator.lower_bound() <= np.linalg.eigvalsh(dense(operator))[0] + 1e-9
        assert operator.connected(SPACE.states())[1].shape == (16, operator.width)
        assert operator.scale > 0
    assert dense(Identity(SPACE, 2.0))[3, 3] == 2
    assert Identity(SPACE, 2.0).mean == 2


def test_fields_and_couplings_by_site_and_bond() -> None:
    chain = waves.chain(3, periodic=False)
    found = waves.ising(chain, field=[0.1, 0.2, 0.3], coupling=[1.0, 2.0], longitudinal=[0.0, 0.5, 0.0])
    terms = {"Z0 Z1": -1.0, "Z1 Z2": -2.0, "X0": -0.1, "X1": -0.2, "X2": -0.3, "Z1": -0.5}
    np.testing.assert_allclose(dense(found), dense(waves.PauliSum(chain_space(3), terms)), atol=1e-14)
    with pytest.raises(ValueError, match="`field` must be one number or 3 of them, but has shape"):
        waves.ising(chain, field=[1.0, 2.0])


def chain_space(sites: int) -> waves.Space:
    return waves.spins(sites)
