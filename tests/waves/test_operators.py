"""Every operator's matrix against one built here from Kronecker products, and against its own rows."""

from functools import reduce

import numpy as np
import pytest
import torch

from ketwork import waves

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def on_sites(levels: int, sites: int, where, matrix) -> np.ndarray:
    """A matrix on some sites of a product space, by moving axes: not by the package's own indexing."""
    rest = [s for s in range(sites) if s not in where]
    full = np.kron(matrix, np.eye(levels ** len(rest))).reshape((levels,) * (2 * sites))
    order = np.argsort([*where, *rest])
    return full.transpose([*order, *(order + sites)]).reshape(levels**sites, levels**sites)


def strings(sites: int, terms: dict[str, complex]) -> np.ndarray:
    total = np.zeros((2**sites, 2**sites), dtype=complex)
    for text, c in terms.items():
        letters = ["I"] * sites
        for word in text.split():
            letters[int(word[1:])] = word[0]
        total += c * reduce(np.kron, [PAULI[p] for p in letters])
    return total


TERMS = {"": 0.3, "X0 Y2": 0.7, "Z1": -1.1, "Y0 Y1 Z2": 0.4, "X0 Z1 X2": -0.2, "Y1": 0.9, "Z0 Z2": 2.0}


def test_pauli_strings_against_kronecker_products() -> None:
    operator = waves.PauliSum(waves.spins(3), TERMS)
    np.testing.assert_allclose(operator.to_sparse().toarray(), strings(3, TERMS), atol=1e-14)
    assert operator.is_hermitian()
    assert operator.mean == pytest.approx(0.3)
    assert operator.width == len({(0, 2), (), (0, 1), (1,)})


def test_local_matrices_in_any_order_of_sites() -> None:
    rng = np.random.default_rng(0)
    two, one = rng.normal(size=(9, 9)) + 1j * rng.normal(size=(9, 9)), rng.normal(size=(3, 3))
    two, one = two + two.conj().T, one + one.T
    operator = waves.LocalSum(waves.spin_one(3), [((2, 0), two), ((1,), one), ((0, 1), two)])
    expected = on_sites(3, 3, (2, 0), two) + on_sites(3, 3, (1,), one) + on_sites(3, 3, (0, 1), two)
    np.testing.assert_allclose(operator.to_sparse().toarray(), expected, atol=1e-12)
    assert operator.mean == pytest.approx(np.trace(expected).real / 27)
    assert operator.lower_bound() <= np.linalg.eigvalsh(expected)[0]


def test_sums_differences_multiples_and_a_pauli_sum_with_a_local_one() -> None:
    space = waves.spins(3)
    pauli = waves.PauliSum(space, TERMS)
    other = waves.LocalSum(space, [((1, 2), np.arange(16.0).reshape(4, 4) + np.arange(16.0).reshape(4, 4).T)])
    a, b = pauli.to_sparse().toarray(), other.to_sparse().toarray()
    np.testing.assert_allclose((pauli + 2 * other).to_sparse().toarray(), a + 2 * b, atol=1e-12)
    np.testing.assert_allclose((other - pauli).to_sparse().toarray(), b - a, atol=1e-12)
    assert (pauli - pauli).coefficients.size == 0


MODELS = [
    waves.ising(waves.chain(5), field=0.7, coupling=1.3),
    waves.xxz(waves.chain(6), anisotropy=0.4),
    waves.heisenberg(waves.square(2, 3), magnetization=None),
    waves.j1j2(waves.square(2, 4), j2=0.5, magnetization=2),
    waves.bose_hubbard(waves.chain(4), interaction=3.0, particles=4, most=3),
    waves.bose_hubbard(waves.chain(3), interaction=3.0, most=2),
    waves.spin_one_heisenberg(waves.chain(4)),
]


@pytest.mark.parametrize("operator", MODELS, ids=repr)
def test_rows_of_any_operator_are_those_of_its_matrix(operator: waves.Operator) -> None:
    matrix = operator.to_sparse().toarray()
    np.testing.assert_allclose(matrix, matrix.conj().T, atol=1e-12)
    x = operator.space.states(torch.float64)
    reached, elements = operator.connected(x)
    rows = np.zeros_like(matrix)
    for i in range(len(x)):
        for y, e in zip(reached[i], elements[i], strict=True):
            if e != 0:
                rows[i, int(operator.space.index(y))] += e.item()
    np.testing.assert_allclose(rows, matrix, atol=1e-12)
    assert operator.lower_bound() <= np.linalg.eigvalsh(matrix)[0] + 1e-9
    assert operator.is_hermitian()


def test_a_sector_holds_the_eigenvalues_of_the_whole() -> None:
    whole = np.linalg.eigvalsh(waves.heisenberg(waves.chain(6), magnetization=None).to_sparse().toarray())
    sector = np.linalg.eigvalsh(waves.heisenberg(waves.chain(6)).to_sparse().toarray())
    assert sector[0] == pytest.approx(whole[0])
    assert all(np.abs(whole - value).min() < 1e-9 for value in sector)


def test_the_sign_rule_keeps_the_spectrum_and_makes_the_ground_state_positive() -> None:
    plain = waves.heisenberg(waves.chain(8), sign_rule=False)
    signed = waves.heisenberg(waves.chain(8))
    np.testing.assert_allclose(waves.exact.spectrum(plain), waves.exact.spectrum(signed), atol=1e-10)
    assert (waves.exact.ground_state_vector(signed) > 0).all()
    assert (waves.exact.ground_state_vector(plain) < 0).any()
    with pytest.raises(ValueError, match="needs a bipartite lattice"):
        waves.heisenberg(waves.chain(5), magnetization=1, sign_rule=True)


def test_an_operator_that_leaves_its_sector_is_refused() -> None:
    with pytest.raises(ValueError, match="leads out of its space"):
        waves.PauliSum(waves.spins(4, magnetization=0), {"X0": 1.0}).to_sparse()


def test_hermiticity_is_told() -> None:
    space = waves.spins(2)
    assert not waves.PauliSum(space, {"X0": 1j}).is_hermitian()
    assert not waves.LocalSum(space, [((0,), np.array([[0, 1], [0, 0]]))]).is_hermitian()
    lowering = np.array([[0.0, 1.0], [0.0, 0.0]])
    pair = [((0, 1), np.kron(lowering, lowering.T)), ((1, 0), np.kron(lowering, lowering.T))]
    assert waves.LocalSum(space, pair).is_hermitian()  # each term is not, their sum is


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"Q0": 1.0}, "reads like"),
        ({"X7": 1.0}, "sites 0 … 2, but has 'X7'"),
        ({"X0 Z0": 1.0}, "must name each site once"),
    ],
)
def test_malformed_strings(terms, message) -> None:
    with pytest.raises(ValueError, match=message):
        waves.PauliSum(waves.spins(3), terms)


def test_pauli_strings_need_two_levels_and_matrices_their_size() -> None:
    with pytest.raises(ValueError, match="two levels"):
        waves.PauliSum(waves.spin_one(2), {"X0": 1.0})
    with pytest.raises(ValueError, match="must be 9 × 9"):
        waves.LocalSum(waves.spin_one(2), [((0, 1), np.eye(4))])
    with pytest.raises(ValueError, match="distinct sites"):
        waves.LocalSum(waves.spin_one(2), [((0, 0), np.eye(9))])
    with pytest.raises(ValueError, match="same space"):
        waves.PauliSum(waves.spins(2), {"X0": 1.0}) + waves.PauliSum(waves.spins(3), {"X0": 1.0})
