"""Operators of other libraries as operators here. Each library is imported only when its function is called."""

from typing import TYPE_CHECKING

import numpy as np

from ketwork.waves.local_matrices import LocalSum
from ketwork.waves.pauli import PauliSum
from ketwork.waves.spaces import Space, qubits

if TYPE_CHECKING:
    from openfermion import QubitOperator
    from qiskit.quantum_info import SparsePauliOp
    from qutip import Qobj


def from_qiskit(operator: "SparsePauliOp", space: Space | None = None) -> PauliSum:
    """The same Pauli sum, qubit k on site k; on free qubits unless a two-level `space` is given.

    Qiskit writes qubit 0 last, in labels and in Kronecker products; site 0 comes first here. So the matrix
    of the result is Qiskit's with the order of the qubits reversed.
    """
    space = _fits(space, operator.num_qubits)
    paulis = operator.paulis
    return PauliSum.from_masks(space, np.asarray(paulis.x), np.asarray(paulis.z), operator.coeffs)


def from_openfermion(operator: "QubitOperator", space: Space | None = None) -> PauliSum:
    """The same Pauli sum, qubit k on site k; on as many free qubits as it names unless a `space` is given."""
    named = 1 + max((site for term in operator.terms for site, _ in term), default=0)
    space = _fits(space, named, at_least=True)
    texts = ((" ".join(f"{letter}{site}" for site, letter in term), c) for term, c in operator.terms.items())
    return PauliSum(space, texts)


def from_qutip(operator: "Qobj", space: Space | None = None) -> LocalSum:
    """The same matrix on all sites, in the same order of Kronecker products; for at most 4,096 dimensions."""
    dims = operator.dims[0]
    if operator.dims[0] != operator.dims[1] or len(set(dims)) != 1:
        raise ValueError(
            f"Argument `operator` must have equal dimensions on all sites, but has {operator.dims}."
        )
    if operator.shape[0] > 4096:
        raise ValueError(f"A dense operator may have at most 4096 dimensions, but has {operator.shape[0]}.")
    space = space or Space(len(dims), dims[0], 0.0, 1.0)
    if space.shape != tuple(dims):
        raise ValueError(f"Argument `space` must have the shape {tuple(dims)}, but has {space.shape}.")
    return LocalSum(space, [(range(len(dims)), operator.full())])


def _fits(space: Space | None, sites: int, at_least: bool = False) -> Space:
    space = space or qubits(sites)
    if space.levels != 2 or not (space.sites == sites or (at_least and space.sites > sites)):
        raise ValueError(
            f"Argument `space` must have {sites} sites of two levels, but has {space.sites} of {space.levels}."
        )
    return space
