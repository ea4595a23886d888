"""Steady states of open systems, exactly: the null vector of the Lindblad superoperator. For small systems; no network.

L ρ = A ρ + ρ A† + Σ_k L_k ρ L_k† with A = −iH − ½ Σ_k L_k†L_k. What solves L ρ = 0 is the fixed point of the map ρ →
(s − A · − · A†)⁻¹(s ρ + Σ_k L_k ρ L_k†), completely positive and of spectral radius 1 for every s > 0. The
superoperator is never formed: A's Schur form solves the Sylvester equation in O(size³), and Arnoldi's method gives the
fixed point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch

from ketwork.quantum import Density
from ketwork.waves.operators import Operator

MOST = 256
"""The most configurations: a density matrix on them has their square."""

SAME = 1e-6
"""Fixed points reached from two starts that differ by more are two steady states."""

SHIFT = 0.1
"""s, over the mean rate of decay."""

RESIDUAL = 1e-8
"""The most by which a steady state may change, over the operators' rates."""

Map = Callable[[np.ndarray], np.ndarray]


def steady_state(operator: Operator, jumps: Sequence[Operator]) -> Density:
    """ρ with 0 = −i[H, ρ] + Σ_k (L_k ρ L_k† − ½{L_k†L_k, ρ}): the state that an open system comes to.

    `jumps` are the L_k with their rates' square roots in them (Lindblad 1976, DOI 10.1007/BF01608499). The result is on
    `space.states()`, exact up to rounding: its dims are those of the sites where the space is their full product, else
    one. For at most 256 configurations: no network is involved. Cost: O(size³) for each of some hundred steps of
    Arnoldi's method. QuTiP's `steadystate(H, c_ops)` is the same.

    Raises:
        ValueError: H is not Hermitian, the operators are on several spaces or lead out of theirs, the space is too
            large, or there are several steady states (nothing that jumps; a symmetry).

    >>> from ketwork.waves import PauliSum, qubits
    >>> space = qubits(1)
    >>> decay = PauliSum(space, {"X0": 0.5, "Y0": 0.5j})
    >>> rho = steady_state(PauliSum(space, {"Z0": 1.0}), [decay])  # to |0⟩
    >>> round(float(rho.matrix()[0, 0].real), 9)
    1.0
    """
    space = operator.space
    if not operator.is_hermitian():
        raise ValueError("Argument `operator` must be Hermitian, but is not: its evolution is not unitary.")
    if any(jump.space != space for jump in jumps):
        raise ValueError("Argument `jumps` must be operators on the space of `operator`, but one is not.")
    if space.size > MOST:
        raise ValueError(
            f"Argument `operator` must be on at most {MOST} configurations, but is on {space.size}. Use fewer "
            "sites, or a space of conserved values."
        )
    rates = [float((jump.matrix.conj().T @ jump.matrix).diagonal().real.sum()) for jump in jumps]
    mean = sum(rates) / space.size
    if mean == 0 and space.size > 1:
        raise ValueError(SEVERAL)
    apply, resolvent = _maps(operator, jumps, SHIFT * mean)
    rho = np.ones((1, 1)) if space.size == 1 else _fixed_point(resolvent, space.size)
    residual = float(abs(apply(rho)).max())
    if residual > RESIDUAL * (mean + operator.scale):
        raise ValueError(
            f"The steady state was not reached to rounding: it changes at a rate of {residual:.2g}. Scale the "
            "operators so that their rates are less far apart."
        )
    full = space.size == space.levels**space.sites
    matrix = torch.from_numpy(rho.real.copy() if not abs(rho.imag).max() > 1e-14 else rho)
    return Density.from_matrix(matrix, space.shape if full else None)


def _maps(operator: Operator, jumps: Sequence[Operator], shift: float) -> tuple[Map, Map]:
    """ρ → L ρ, and ρ → (s − A · − · A†)⁻¹(s ρ + Σ_k L_k ρ L_k†)."""
    matrices = [jump.matrix for jump in jumps]
    a = -1j * operator.matrix.toarray() - sum((j.conj().T @ j).toarray() for j in matrices) / 2
    schur, turn = scipy.linalg.schur(a - shift / 2 * np.eye(len(a)), output="complex")
    (solve,) = scipy.linalg.get_lapack_funcs(("trsyl",), (schur,))

    def jumped(rho: np.ndarray) -> np.ndarray:
        return sum(((j @ rho) @ j.conj().T for j in matrices), np.zeros_like(rho))

    def apply(rho: np.ndarray) -> np.ndarray:
        return a @ rho + rho @ a.conj().T + jumped(rho)

    def resolvent(rho: np.ndarray) -> np.ndarray:
        right = turn.conj().T @ (shift * rho + jumped(rho)) @ turn
        solved, scale, _ = solve(schur, schur, -right, tranb="C")
        return turn @ (scale * solved) @ turn.conj().T

    return apply, resolvent


def _fixed_point(resolvent: Map, size: int) -> np.ndarray:
    """The state that the map keeps; refuses two of them."""
    shape = scipy.sparse.linalg.LinearOperator(
        (size**2, size**2),
        matvec=lambda v: resolvent(v.reshape(size, size)).reshape(-1),
        dtype=np.complex128,
    )
    random, reached = np.random.default_rng(0), []
    for _ in range(2):  # Arnoldi's method sees one vector of a degenerate eigenvalue: that in the start
        start = (np.eye(size) + random.normal(size=(size, size)) / size).reshape(-1) + 0j
        try:
            _, vectors = scipy.sparse.linalg.eigs(shape, k=1, which="LR", v0=start)
        except scipy.sparse.linalg.ArpackNoConvergence as error:
            raise ValueError(SEVERAL) from error
        rho = vectors[:, 0].reshape(size, size)
        rho = rho / np.trace(rho)
        reached.append((rho + rho.conj().T) / 2)
    if np.abs(reached[0] - reached[1]).max() > SAME:
        raise ValueError(SEVERAL)
    return reached[0]


SEVERAL = (
    "Argument `jumps` must lead to one steady state, but there are several, or relaxation is too slow to tell: what "
    "they and the operator conserve decides. Add jumps, or take the space of one conserved value."
)
