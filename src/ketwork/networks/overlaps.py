"""From the streamed moments of pairs of layers to the numbers that compare them.

Notation: X (N × dₓ) and Y (N × d_y) are two layers' rows on the same samples, centred; C = XᵀY; λ are the
eigenvalues of XᵀX. Every measure here is unchanged by rotations of either layer's features, so each layer is
first brought to its principal axes, on whichever side is smaller: XᵀX (dₓ × dₓ) or XXᵀ (N × N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.pairs import CrossMoments, PairMoments

MEASURES = (
    "cka",
    "cka_biased",
    "bures",
    "bures_null",
    "r2",
    "r2_reverse",
    "r2_fit",
    "r2_fit_reverse",
)

_SINGLE = torch.finfo(torch.float32).eps
_CONSTANT = 1e-12  # a centred layer with less than this share of its weight is the same on every sample
_COLUMNS = 4096  # features of a wide layer that are widened to float64 at a time
_NODES = 2000


@dataclass
class Axes:
    """One layer on its principal axes: eigenvalues of XᵀX from the largest, and how many stand above rounding.

    `mean` is the layer's mean row on these axes, `beside` the length of what of it lies outside of them;
    `constant` says that the layer puts out the same for every sample.
    """

    values: Tensor
    rank: int
    mean: Tensor
    beside: float
    constant: bool

    @classmethod
    def of(cls, values: Tensor, rank: int, mean: Tensor, beside: float, n: int) -> Axes:
        """The axes of n rows."""
        offset = n * (float(mean.square().sum()) + beside**2)
        return cls(values, min(rank, n - 1), mean, beside, float(values.sum()) <= _CONSTANT * offset)

    @property
    def weight(self) -> float:
        """Tr XᵀX."""
        return float(self.values.sum())


@dataclass
class Overlaps:
    """All layers on their principal axes; `lengths` (L, L) is Σ‖x‖²‖y‖² of centred rows, `blocks` gives C.

    `blocks(i)` yields (j, C of layers i and j) for all later partners j of i.
    """

    n: int
    axes: list[Axes]
    lengths: Tensor
    totals: Tensor
    blocks: Callable[[int], Iterator[tuple[int, Tensor]]]


def overlaps(pairs: PairMoments) -> Overlaps:
    """The overlaps of all pairs; kept rows are released as they are read.

    Cost: O(L min(d, N)³) for the axes, O(N d²) or O(d³) a pair.
    """
    pairs.flush()
    return _from_rows(pairs) if pairs.cross is None else _from_moments(pairs.cross, pairs.split)


def measures(found: Overlaps, split: int | None, center: bool) -> dict[str, Tensor]:
    """Each of `MEASURES` as a matrix: rows × columns are all layers, or first × second side of `split`.

    Cost: one symmetric eigenvalue problem of min(d, N) a pair.
    """
    size = len(found.axes)
    matrices = {name: torch.full((size, size), math.nan, dtype=torch.float64) for name in MEASURES}
    diagonal = torch.tensor([float(axes.values.square().sum()) for axes in found.axes], dtype=torch.float64)
    own = [_debiased(found, i, i, float(diagonal[i])) for i in range(size)]
    nulls = _nulls([axes.values for axes in found.axes], found.n - 1) if center else None

    def enter(i: int, j: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            matrices[name][i, j] = value

    for i in range(size):
        if split is None:
            enter(i, i, _with_itself(found.axes[i], found.n))
            if nulls is not None:
                matrices["bures_null"][i, i] = nulls[i, i]
        for j, c in found.blocks(i):
            x, y = found.axes[i], found.axes[j]
            if x.constant or y.constant:
                continue
            squares = c.square()
            total = float(squares.sum())
            numbers = {
                "cka": _ratio(_debiased(found, i, j, total), own[i] * own[j]),
                "cka_biased": total / math.sqrt(float(diagonal[i] * diagonal[j])),
                "bures": _root_fidelity(c, x, y, found.n, center),
            }
            if nulls is not None:
                numbers["bures_null"] = float(nulls[i, j])
            forth = _explained(squares.sum(dim=1), x, y, found.n)
            back = _explained(squares.sum(dim=0), y, x, found.n)
            enter(i, j, numbers | _both_ways(forth, back))
            if split is None:
                enter(j, i, numbers | _both_ways(back, forth))
    if split is None:
        return matrices
    return {name: matrix[:split, split:].clone() for name, matrix in matrices.items()}


def _from_rows(pairs: PairMoments) -> Overlaps:
    n, count = pairs.n, len(pairs.keys)
    axes, factors, lengths = [], [], []
    for i in range(count):
        found, factor = _axes_of_rows(pairs.rows(i))
        pairs.release(i)
        axes.append(found)
        factors.append(factor)
        lengths.append(factor.square().sum(dim=1))
    of_samples = torch.stack(lengths, dim=1)  # (n, L)
    starts = [sum(factor.shape[1] for factor in factors[:i]) for i in range(count + 1)]
    side_by_side = torch.cat(factors, dim=1)  # (n, Σ r)
    factors.clear()

    def blocks(i: int) -> Iterator[tuple[int, Tensor]]:
        first = _first_partner(i, pairs.split, count)
        if first >= count:
            return
        product = side_by_side[:, starts[i] : starts[i + 1]].mT @ side_by_side[:, starts[first] :]
        for j in range(first, count):
            yield j, product[:, starts[j] - starts[first] : starts[j + 1] - starts[first]]

    return Overlaps(n, axes, of_samples.mT @ of_samples, of_samples.sum(dim=0), blocks)


def _axes_of_rows(rows: Tensor) -> tuple[Axes, Tensor]:
    """A layer's axes and its centred rows on them, (n, min(n, d))."""
    n, d = rows.shape
    mean = rows.mean(dim=0, dtype=torch.float64)
    if d <= n:
        x = rows.double() - mean
        values, vectors = _eigen(x.mT @ x)
        on_axes = vectors.mT @ mean
        factor = x @ vectors
    else:
        gram, along = mean.new_zeros(n, n), mean.new_zeros(n)
        for piece, part in zip(rows.split(_COLUMNS, dim=1), mean.split(_COLUMNS), strict=True):
            x = piece.double() - part
            gram += x @ x.mT
            along += x @ part
        values, vectors = _eigen(gram)
        factor = vectors * values.sqrt()
        above = values > values[0] * n * torch.finfo(torch.float64).eps
        on_axes = torch.where(above, vectors.mT @ along / torch.where(above, values, 1.0).sqrt(), 0.0)
    # Rows are rounded to float32: an axis of pure rounding has (d or N) × eps² of the largest one's weight.
    rank = int((values > values[0] * max(n, d) * (4 * _SINGLE) ** 2).sum())
    beside = max(float(mean.square().sum() - on_axes.square().sum()), 0.0) ** 0.5
    return Axes.of(values, rank, on_axes, beside, n), factor


def _from_moments(cross: CrossMoments, split: int | None) -> Overlaps:
    n, count = cross.n, len(cross.dims)
    means = [cross.mean(i) for i in range(count)]
    axes, vectors = [], []
    for i in range(count):
        values, rotation = _eigen(cross.raw(i, i) - n * torch.outer(means[i], means[i]))
        # The products ran in float32, which hides axes lighter than its rounding.
        rank = int((values > values[0] * _SINGLE * len(values) ** 0.5).sum())
        axes.append(Axes.of(values, rank, rotation.mT @ (cross.origin[i] + means[i]), 0.0, n))
        vectors.append(rotation)

    def blocks(i: int) -> Iterator[tuple[int, Tensor]]:
        for j in range(_first_partner(i, split, count), count):
            yield j, vectors[i].mT @ (cross.raw(i, j) - n * torch.outer(means[i], means[j])) @ vectors[j]

    squares = torch.stack([mean.square().sum() for mean in means])
    lengths = cross.lengths_of_pairs.clone()
    for i in range(count):
        for j in range(i, count):
            lengths[i, j] = lengths[j, i] = _centred_lengths(cross, means, squares, i, j)
    return Overlaps(n, axes, lengths, cross.lengths - n * squares, blocks)


def _centred_lengths(cross: CrossMoments, means: list[Tensor], squares: Tensor, i: int, j: int) -> Tensor:
    """Σ ‖x−μ‖²‖y−ν‖² from sums of uncentred rows: expand ‖x−μ‖² = ‖x‖² − 2μx + ‖μ‖²."""
    mu, nu, n = means[i], means[j], cross.n
    a, b = squares[i], squares[j]
    if i == j or cross.split is None or i < cross.split <= j:
        both = mu @ cross.raw(i, j) @ nu
    else:
        return cross.lengths_of_pairs.new_tensor(math.nan)  # a pair that nobody asks for
    return (
        cross.lengths_of_pairs[i, j]
        - 2 * nu @ cross.of_lengths(i, j)
        - 2 * mu @ cross.of_lengths(j, i)
        + b * cross.lengths[i]
        + a * cross.lengths[j]
        + 4 * both
        - 3 * n * a * b
    )


def _debiased(found: Overlaps, i: int, j: int, total: float) -> float:
    """n(n−3) times HSIC₁ (Song et al. 2012, JMLR 13:1393) of two centred layers, from ‖C‖² and row lengths.

    With both means zero the terms in Σx vanish, and what is left of the formula is three sums.
    """
    n = found.n
    product = float(found.totals[i] * found.totals[j])
    return total - n / (n - 2) * float(found.lengths[i, j]) + product / ((n - 1) * (n - 2))


def _root_fidelity(c: Tensor, x: Axes, y: Axes, n: int, center: bool) -> float:
    """‖XᵀY‖_* / √(Tr XᵀX Tr YᵀY); uncentred, with the means put back."""
    if center:
        return _nuclear(c) / math.sqrt(x.weight * y.weight)
    p, q = (torch.cat([axes.mean, axes.mean.new_tensor([axes.beside])]) for axes in (x, y))
    whole = n * torch.outer(p, q)
    whole[:-1, :-1] += c
    weights = [axes.weight + n * float(m.square().sum()) for axes, m in ((x, p), (y, q))]
    return _nuclear(whole) / math.sqrt(weights[0] * weights[1])


def _nuclear(c: Tensor) -> float:
    """The sum of singular values: roots of the smaller Gram matrix's eigenvalues, at half the time of an SVD."""
    gram = c @ c.mT if c.shape[0] <= c.shape[1] else c.mT @ c
    values = torch.linalg.eigvalsh(gram)
    noise = values[-1] * len(values) * torch.finfo(values.dtype).eps
    return float(torch.where(values > noise, values, 0.0).sqrt().sum())


def _explained(squares: Tensor, x: Axes, y: Axes, n: int) -> tuple[float, float]:
    """Share of Y that the best linear map of X fits, and the same adjusted for the fitted parameters."""
    fit = float((squares[: x.rank] / x.values[: x.rank]).sum()) / y.weight
    return fit, _adjusted(fit, x.rank, n)


def _adjusted(fit: float, rank: int, n: int) -> float:
    left = n - 1 - rank
    return 1 - (1 - fit) * (n - 1) / left if left > 0 else math.nan


def _both_ways(forth: tuple[float, float], back: tuple[float, float]) -> dict[str, float]:
    return {"r2_fit": forth[0], "r2": forth[1], "r2_fit_reverse": back[0], "r2_reverse": back[1]}


def _with_itself(x: Axes, n: int) -> dict[str, float]:
    if x.constant:
        return {}
    same = (1.0, _adjusted(1.0, x.rank, n))
    return {"cka": 1.0, "cka_biased": 1.0, "bures": 1.0} | _both_ways(same, same)


def _nulls(spectra: list[Tensor], m: int) -> Tensor:
    """The root fidelity to expect of layers with these spectra and nothing in common, (L, L).

    A free multiplicative convolution: for two m × m states with independent eigenbases
    ‖√K√L‖_* → m (2/π) ∫ √(p/(1−p)) (u_K(p) u_L(p))^(−1/2) dp, where u_K(p) inverts
    p = (1/m) Tr uK/(1 + uK) (Voiculescu's S-transform on the negative axis). Exact for large m.
    """
    x = (torch.arange(_NODES, dtype=torch.float64) + 0.5) / _NODES
    # p = 1 - (1 - x²)²: nodes crowd at both ends, where the integrand's slope diverges.
    p, step = 1 - (1 - x * x) ** 2, 4 * x * (1 - x * x) / _NODES
    grid = torch.logspace(-6, 12, 1000, dtype=torch.float64)
    inverse_roots = []
    for values in spectra:
        weights = values.cpu()[: max(m, 1)].clamp(min=0)
        total = weights.sum()
        if total <= 0:
            inverse_roots.append(torch.zeros_like(p))
            continue
        scaled = weights / total
        u = grid * m  # p ≈ u/m for small u
        share = (u[:, None] * scaled / (1 + u[:, None] * scaled)).sum(dim=1) / m
        inverse_roots.append(_interpolated(p, share, u.log()))
    roots = torch.stack(inverse_roots)  # (L, nodes)
    return m * (2 / math.pi) * (roots * (p / (1 - p)).sqrt() * step) @ roots.mT


def _interpolated(p: Tensor, share: Tensor, log_u: Tensor) -> Tensor:
    """u(p)^(−1/2), 0 beyond the largest share that can be had."""
    right = torch.searchsorted(share, p).clamp(1, len(share) - 1)
    low, high = share[right - 1], share[right]
    part = ((p - low) / torch.where(high > low, high - low, 1.0)).clamp(0, 1)
    at = log_u[right - 1] + part * (log_u[right] - log_u[right - 1])
    return torch.where(p < share[-1], (-at / 2).exp(), 0.0)


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues from the largest, none negative, and eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _ratio(inner: float, squared: float) -> float:
    return inner / math.sqrt(squared) if squared > 0 else math.nan


def _first_partner(i: int, split: int | None, count: int) -> int:
    if split is None:
        return i + 1
    return split if i < split else count
