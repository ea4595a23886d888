"""Operators of other libraries: their matrices must be ours."""

import numpy as np
import openfermion
import pytest
import qutip
from qiskit.quantum_info import SparsePauliOp

from ketwork import waves

LABELS, COEFFICIENTS = ["XYZ", "IZX", "YIY", "III", "ZZI"], [0.5, -1.2, 0.7, 0.3, 2.0]


def test_qiskit_with_its_order_of_qubits_reversed() -> None:
    theirs = SparsePauliOp(LABELS, COEFFICIENTS)
    ours = waves.from_qiskit(theirs)
    reversed_ = SparsePauliOp([label[::-1] for label in LABELS], COEFFICIENTS).to_matrix()
    np.testing.assert_allclose(ours.to_sparse().toarray(), reversed_, atol=1e-14)
    phased = SparsePauliOp(
        SparsePauliOp(["Y"]).paulis @ SparsePauliOp(["X"]).paulis, [1.0]
    )  # −iZ, up to order
    np.testing.assert_allclose(
        waves.from_qiskit(phased).to_sparse().toarray(), phased.to_matrix(), atol=1e-14
    )


def test_qiskit_on_spins_acts_alike() -> None:
    theirs = SparsePauliOp(["ZZ", "XI"], [1.0, 0.5])
    ours = waves.from_qiskit(theirs, waves.spins(2))
    assert ours.space == waves.spins(2)
    expected = waves.PauliSum(waves.spins(2), {"Z0 Z1": 1.0, "X1": 0.5})
    np.testing.assert_allclose(ours.to_sparse().toarray(), expected.to_sparse().toarray())


def test_openfermion() -> None:
    theirs = openfermion.QubitOperator("X0 Y2", 0.4) + openfermion.QubitOperator("Z1", -1) + 2.0
    expected = openfermion.get_sparse_operator(theirs, n_qubits=3).toarray()
    np.testing.assert_allclose(waves.from_openfermion(theirs).to_sparse().toarray(), expected, atol=1e-14)
    wider = waves.from_openfermion(theirs, waves.qubits(4))
    np.testing.assert_allclose(wider.to_sparse().toarray(), np.kron(expected, np.eye(2)), atol=1e-14)


def test_qutip_of_two_and_three_levels() -> None:
    pair = qutip.rand_herm([2, 2, 2], seed=0)
    np.testing.assert_allclose(waves.from_qutip(pair).to_sparse().toarray(), pair.full(), atol=1e-14)
    spin_one = qutip.tensor(qutip.spin_Jx(1), qutip.spin_Jz(1))
    ours = waves.from_qutip(spin_one, waves.spin_one(2))
    np.testing.assert_allclose(ours.to_sparse().toarray(), spin_one.full(), atol=1e-14)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="must have 2 sites of two levels, but has 3 of 2"):
        waves.from_qiskit(SparsePauliOp(["ZZ"]), waves.qubits(3))
    with pytest.raises(ValueError, match="must have 4 sites of two levels"):
        waves.from_openfermion(openfermion.QubitOperator("X3"), waves.qubits(2))
    with pytest.raises(ValueError, match="equal dimensions on all sites"):
        waves.from_qutip(qutip.rand_herm([2, 3]))
    with pytest.raises(ValueError, match="must have the shape"):
        waves.from_qutip(qutip.rand_herm([2, 2]), waves.spin_one(2))
