"""The exact side, to hold variational results against: Lanczos, spectra, evolution, closed forms."""

import math

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from ketwork.waves.operators import Operator

DENSE = 4096
"""The largest space whose full spectrum is computed."""


def ground_energy(operator: Operator) -> float:
    """The least eigenvalue, by Lanczos (SciPy's ARPACK, to machine precision); dense below 64 states.

    >>> from ketwork.waves import chain, ising
    >>> round(ground_energy(ising(chain(10), field=1.0)), 8)
    -12.78490644
    """
    return float(lowest(operator, 1)[0][0])


def lowest(operator: Operator, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The `count` least eigenvalues, ascending, and their vectors (size, count) on `space.states()`."""
    _check_hermitian(operator)
    matrix = operator.to_sparse()
    if matrix.shape[0] < max(64, 2 * count + 2):
        values, vectors = np.linalg.eigh(matrix.toarray())
        return values[:count], vectors[:, :count]
    # A fixed, generic start makes the result repeatable; a symmetric one could miss a sector.
    start = np.random.default_rng(0).normal(size=matrix.shape[0])
    values, vectors = scipy.sparse.linalg.eigsh(matrix, k=count, which="SA", v0=start)
    order = values.argsort()
    return values[order], vectors[:, order]


def ground_state_vector(operator: Operator) -> Tensor:
    """The ground state's amplitudes (size,) on `space.states()`, its largest one positive."""
    vector = lowest(operator, 1)[1][:, 0]
    largest = vector[np.abs(vector).argmax()]
    return torch.from_numpy(vector * (abs(largest) / largest))


def spectrum(operator: Operator) -> np.ndarray:
    """All eigenvalues, ascending, of a space of at most 4,096 states."""
    _check_hermitian(operator)
    if operator.space.size > DENSE:
        raise ValueError(
            f"A full spectrum needs at most {DENSE} states, but this space has "
            f"{operator.space.size}. Use `lowest`."
        )
    return np.linalg.eigvalsh(operator.to_sparse().toarray())


def evolve(operator: Operator, amplitudes: Tensor, time: float, *, imaginary: bool = False) -> Tensor:
    """exp(−iHt)·ψ, or exp(−Ht)·ψ normalised, without ever forming the exponential (Al-Mohy & Higham 2011)."""
    _check_hermitian(operator)
    factor = -time if imaginary else -1j * time
    matrix = operator.to_sparse()
    shift = (
        matrix.diagonal().mean()
    )  # a shift of the energy is a phase or a norm, and keeps the numbers small
    matrix = matrix - shift * scipy.sparse.identity(matrix.shape[0])
    moved = scipy.sparse.linalg.expm_multiply(factor * matrix, amplitudes.numpy(), traceA=0.0)
    if imaginary:
        return torch.from_numpy(moved / np.linalg.norm(moved))
    return torch.from_numpy(moved * np.exp(factor * shift))


def ising_chain_energy(length: int, field: float = 1.0, coupling: float = 1.0) -> float:
    """The ground energy of the periodic transverse-field Ising chain of even length: free fermions.

    E₀ = −Σ_k √(J² + h² − 2Jh cos k) over the antiperiodic momenta k = (2m+1)π/L (Pfeuty 1970, DOI
    10.1016/0003-4916(70)90270-8). At h = J it is −2/sin(π/2L) · J.

    >>> round(ising_chain_energy(20), 10)
    -25.4909896864
    """
    if length < 2 or length % 2:
        raise ValueError(f"Argument `length` must be even and at least 2, but is {length}.")
    k = (2 * np.arange(length) + 1) * math.pi / length
    return -float(np.sqrt(coupling**2 + field**2 - 2 * abs(coupling * field) * np.cos(k)).sum())


def _check_hermitian(operator: Operator) -> None:
    if not operator.is_hermitian():
        raise ValueError("Argument `operator` must be Hermitian, but is not: its energies would be complex.")
