"""The contract of operators on a space: rows, matrix, algebra, bounds and signs agree, whatever the representation."""

import numpy as np
import pytest
import torch

from ketwork import waves

SQUARE = waves.square(3, 2, periodic=False)
SPINS = waves.spins(5)
SPIN_ONE = waves.spin_one(3)


def random_local() -> waves.LocalSum:
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(9, 9)) + 1j * draw.normal(size=(9, 9))
    return waves.LocalSum(SPIN_ONE, [((0, 2), matrix + matrix.conj().T)])


OPERATORS = {
    "pauli": lambda: waves.PauliSum(SPINS, {"X0 Y3": 0.5, "Z1 Z2": -1.5, "Y4": 0.3, "": 0.2}),
    "ising": lambda: waves.ising(waves.chain(5), 0.7),
    "heisenberg": lambda: waves.heisenberg(SQUARE),
    "bosons": lambda: waves.bose_hubbard(waves.chain(3), 2.0, most=2, particles=3),
    "hubbard": lambda: waves.hubbard(waves.chain(3), 4.0),
    "t–V": lambda: waves.spinless(SQUARE, 2.0),
    "spin one": lambda: waves.spin_one_heisenberg(waves.chain(4)),
    "local": random_local,
    "sum": lambda: waves.ising(waves.chain(5), 0.7) + random_field() + 0.3,
    "product": lambda: waves.ising(waves.chain(5), 0.7) @ waves.ising(waves.chain(5), 0.7),
    "projected": lambda: waves.Projected(
        waves.PauliSum(
            waves.blockaded(waves.qubits(5), waves.chain(5).bonds()), {f"X{i}": 1.0 for i in range(5)}
        )
    ),
    "molecule": lambda: waves.molecule("H 0 0 0; H 0 0 0.7414").operator,
}


def random_field() -> waves.LocalSum:
    return waves.LocalSum(SPINS, [((k,), np.diag([0.1 * k, -0.2])) for k in range(5)])


@pytest.fixture(params=OPERATORS, scope="module")
def operator(request: pytest.FixtureRequest) -> waves.Operator:
    return OPERATORS[request.param]()


@pytest.fixture(scope="module")
def matrix(operator: waves.Operator) -> np.ndarray:
    return operator.to_sparse().toarray()


def test_rows_are_those_of_the_matrix(operator: waves.Operator, matrix: np.ndarray) -> None:
    x = operator.space.states(torch.float64)
    reached, elements = operator.connected(x)
    assert reached.shape == (len(x), reached.shape[1], operator.space.sites)
    assert reached.shape[1] <= operator.width
    row, place = torch.nonzero(elements, as_tuple=True)
    found = np.zeros(matrix.shape, dtype=complex)
    np.add.at(
        found, (row.numpy(), operator.space.index(reached[row, place]).numpy()), elements[row, place].numpy()
    )
    np.testing.assert_allclose(found, matrix, atol=1e-12)


def test_the_adjoint_is_the_conjugated_transpose(operator: waves.Operator, matrix: np.ndarray) -> None:
    np.testing.assert_allclose(operator.adjoint().to_sparse().toarray(), matrix.conj().T, atol=1e-12)
    assert operator.is_hermitian() == np.allclose(matrix, matrix.conj().T, atol=1e-10)


def test_numbers_scale_and_shift(operator: waves.Operator, matrix: np.ndarray) -> None:
    identity = np.eye(len(matrix))
    for made, expected in (
        (2.5 * operator, 2.5 * matrix),
        (operator / 4, matrix / 4),
        (-operator, -matrix),
        (operator - 1.5, matrix - 1.5 * identity),
        (0.5 - operator, 0.5 * identity - matrix),
        (operator + operator, 2 * matrix),
        (sum([operator, operator, operator]), 3 * matrix),
        (operator @ operator, matrix @ matrix),
    ):
        np.testing.assert_allclose(made.to_sparse().toarray(), expected, atol=1e-11)


def test_no_energy_lies_below_the_bound(operator: waves.Operator, matrix: np.ndarray) -> None:
    least = np.linalg.eigvalsh(matrix)[0]
    assert operator.lower_bound() <= least + 1e-9
    assert operator.scale > 0
    assert waves.exact.ground_energy(operator) == pytest.approx(least, abs=1e-9)


def test_the_mean_is_the_trace_where_all_states_are_there(
    operator: waves.Operator, matrix: np.ndarray
) -> None:
    space = operator.space
    if space.size == space.levels**space.sites and not np.isnan(operator.mean):
        assert operator.mean == pytest.approx(np.trace(matrix).real / len(matrix), abs=1e-12)


def test_a_rotation_changes_signs_alone(operator: waves.Operator, matrix: np.ndarray) -> None:
    sites = (0, 2)
    levels = operator.space.level(operator.space.states())[:, sites].sum(1).numpy()
    sign = (-1.0) ** levels
    found = operator.rotated(sites).to_sparse().toarray()
    np.testing.assert_allclose(found, sign[:, None] * matrix * sign, atol=1e-12)


def test_local_energies_are_the_matrix_on_the_amplitudes(
    operator: waves.Operator, matrix: np.ndarray
) -> None:
    space = operator.space
    network = waves.FeedForward((6,), phase=True, dtype=torch.float64)
    wave = waves.Wave(network, space, seed=1)
    psi = wave.amplitudes().numpy()
    found = waves.local_energies(operator, wave, space.states(torch.float64)).numpy()
    np.testing.assert_allclose(found * psi, matrix @ psi, atol=1e-10)
    energy = waves.expect(operator, wave, waves.FullSum().sample(wave, 1))
    assert float(energy) == pytest.approx((psi.conj() @ matrix @ psi).real, abs=1e-10)
    spread = np.linalg.norm(matrix @ psi - (psi.conj() @ matrix @ psi) * psi) ** 2
    assert energy.variance == pytest.approx(spread, abs=1e-8)


def test_another_space_is_refused(operator: waves.Operator) -> None:
    with pytest.raises(ValueError, match="same space"):
        _ = operator + waves.ising(waves.chain(7), 1.0)
    with pytest.raises(ValueError, match="same space"):
        _ = operator @ waves.ising(waves.chain(7), 1.0)
