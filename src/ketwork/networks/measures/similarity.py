"""The numbers that compare two layers, for all pairs at once: CKA, root fidelity, explained share.

Notation as in `overlaps`: X, Y centred rows of two layers on N samples, C = XᵀY, λ the eigenvalues of XᵀX.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from ketwork.networks.measures.overlaps import Axes, Overlaps, each

MEASURES: dict[str, tuple[str, ...]] = {
    "cka": ("cka", "cka_biased"),
    "bures": ("bures", "bures_null"),
    "r2": ("r2", "r2_reverse", "r2_fit", "r2_fit_reverse"),
}
"""What can be asked for, and the matrices that it gives."""

_LEFT = 0.1  # share of the samples that a fit must leave over for its adjustment to mean anything
_NODES = 2000


def likeness(found: Overlaps, wanted: Collection[str], *, center: bool = True) -> dict[str, Tensor]:
    """The matrices of the wanted `MEASURES`: all layers × all layers, or first × second side.

    `center` is for Bures alone. Cost: CKA O(N² Σd) from rows; the others O(min(d, N)³) a pair.
    """
    size = len(found.constant)
    names = [name for measure in MEASURES if measure in wanted for name in MEASURES[measure]]
    matrices = {name: found.weights.new_full((size, size), math.nan).cpu() for name in names}
    if "bures" in wanted or "r2" in wanted:
        squares = _by_axes(found, matrices, wanted, center)
    else:
        squares = found.squares().cpu()
    if "cka" in wanted:
        hsic, diagonal = _hsic(found, squares), squares.diagonal()
        matrices["cka"] = hsic / torch.outer(hsic.diagonal(), hsic.diagonal()).sqrt()
        matrices["cka_biased"] = squares / torch.outer(diagonal, diagonal).sqrt()
    matrices = {name: matrix.cpu() for name, matrix in matrices.items()}
    if found.split is None:
        return matrices
    return {name: matrix[: found.split, found.split :].clone() for name, matrix in matrices.items()}


def _by_axes(found: Overlaps, matrices: dict[str, Tensor], wanted: Collection[str], center: bool) -> Tensor:
    """Fills in Bures and R² pair by pair; returns ‖C‖² of all pairs."""
    axes = found.axes()
    squares = torch.diag(torch.stack([layer.values.square().sum() for layer in axes])).cpu()
    if "bures" in wanted and center:
        matrices["bures_null"] = null_root_fidelity([layer.values.cpu() for layer in axes], found.n - 1)
    weights = [float(weight) for weight in found.weights]

    def enter(i: int, j: int, numbers: dict[str, float]) -> None:
        for name in numbers.keys() & matrices.keys():
            matrices[name][i, j] = numbers[name]

    def compare(i: int) -> None:
        x = axes[i]
        if not found.constant[i]:
            same = _explained(1.0, x.rank, found.n)
            enter(i, i, {"bures": 1.0} | _both_ways(same, same))
        for j, c in found.blocks(i):
            if found.constant[i] or found.constant[j]:
                continue
            y = axes[j]
            parts = c.square()
            squares[i, j] = squares[j, i] = float(parts.sum())
            numbers = {}
            if "bures" in wanted:
                numbers["bures"] = _root_fidelity(c, x, y, weights[i] * weights[j], found.n, center)
            forth = _explained(_fit(parts.sum(dim=1), x) / weights[j], x.rank, found.n)
            back = _explained(_fit(parts.sum(dim=0), y) / weights[i], y.rank, found.n)
            enter(i, j, numbers | _both_ways(forth, back))
            enter(j, i, numbers | _both_ways(back, forth))

    each(compare, len(axes))
    return squares


def _hsic(found: Overlaps, squares: Tensor) -> Tensor:
    """n(n−3) HSIC₁ (Song et al. 2012, JMLR 13:1393) of all pairs from ‖C‖² and row lengths.

    With both means 0 the formula's terms in Σx vanish, and three sums are left.
    """
    n, weights = found.n, found.weights.cpu()
    return squares - n / (n - 2) * found.lengths.cpu() + torch.outer(weights, weights) / ((n - 1) * (n - 2))


def _root_fidelity(c: Tensor, x: Axes, y: Axes, weights: float, n: int, center: bool) -> float:
    """‖XᵀY‖_* / √(Tr XᵀX Tr YᵀY); uncentred, with the means put back."""
    if center:
        return _nuclear(c) / math.sqrt(weights)
    p, q = (torch.cat([axes.mean, axes.mean.new_tensor([axes.beside])]) for axes in (x, y))
    whole = n * torch.outer(p, q)
    whole[:-1, :-1] += c
    total = [float(axes.values.sum() + n * mean.square().sum()) for axes, mean in ((x, p), (y, q))]
    return _nuclear(whole) / math.sqrt(total[0] * total[1])


def _nuclear(c: Tensor) -> float:
    """The sum of singular values: roots of the smaller Gram matrix's eigenvalues, faster than an SVD."""
    gram = c @ c.mT if c.shape[0] <= c.shape[1] else c.mT @ c
    values = torch.linalg.eigvalsh(gram)
    noise = values[-1] * len(values) * torch.finfo(values.dtype).eps
    return float(torch.where(values > noise, values, 0.0).sqrt().sum())


def _fit(parts: Tensor, x: Axes) -> float:
    """‖P C‖² with P the projection on a layer's rows: Σ over its axes of ‖C‖²/λ."""
    return float((parts[: x.rank] / x.values[: x.rank]).sum())


def _explained(fit: float, rank: int, n: int) -> tuple[float, float]:
    """A share that a map of that rank fits, and the same adjusted for its parameters (Ezekiel)."""
    left = n - 1 - rank
    return fit, (1 - (1 - fit) * (n - 1) / left if left >= _LEFT * (n - 1) else math.nan)


def _both_ways(forth: tuple[float, float], back: tuple[float, float]) -> dict[str, float]:
    return {"r2_fit": forth[0], "r2": forth[1], "r2_fit_reverse": back[0], "r2_reverse": back[1]}


def null_root_fidelity(spectra: list[Tensor], m: int) -> Tensor:
    """The root fidelity to expect of states with these spectra whose eigenbases have nothing in common, (L, L).

    For m × m states K, L of trace 1 in general position ‖√K√L‖_* → m (2/π) ∫₀¹ √(p/(1−p)) (u_K(p) u_L(p))^(−1/2) dp,
    where u_K(p) inverts p = (1/m) Tr uK/(1 + uK): a free multiplicative convolution (Voiculescu's S-transform
    on the negative axis). Exact for large m and ranks; 6 % too high for two states of rank 1.

    Args:
        spectra: eigenvalues of each, up to a factor; those that are missing are 0.
        m: the dimension they live in (N − 1 for N centred samples).

    >>> import torch
    >>> round(float(null_root_fidelity([torch.ones(50), torch.ones(50)], 50)[0, 1]), 3)
    1.0
    """
    x = (torch.arange(_NODES, dtype=torch.float64) + 0.5) / _NODES
    # p = 1 − (1 − x²)²: nodes crowd at both ends, where the integrand's slope diverges.
    p, step = 1 - (1 - x * x) ** 2, 4 * x * (1 - x * x) / _NODES
    u = m * torch.logspace(-8, 12, 1000, dtype=torch.float64)  # p ≈ u/m for small u
    inverse_roots = []
    for values in spectra:
        total = values.double().sum()
        scaled = values.double() / torch.where(total > 0, total, 1.0)
        share = (u[:, None] * scaled / (1 + u[:, None] * scaled)).sum(dim=1) / m
        right = torch.searchsorted(share, p).clamp(1, len(u) - 1)
        low, high = share[right - 1].log(), share[right].log()
        part = ((p.log() - low) / torch.where(high > low, high - low, 1.0)).clamp(0, 1)
        log_u = torch.lerp(u[right - 1].log(), u[right].log(), part)
        inverse_roots.append(torch.where(p < share[-1], (-log_u / 2).exp(), 0.0))
    roots = torch.stack(inverse_roots)  # (L, nodes)
    return m * (2 / math.pi) * (roots * (p / (1 - p)).sqrt() * step) @ roots.mT
