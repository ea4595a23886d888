"""Measures of pairs of layers, for all pairs at once: CKA, root fidelity, explained share.

Notation as in `overlaps`: X, Y centred rows of two layers on N samples, C = XᵀY, λ the eigenvalues of XᵀX. A measure is
declared by `pair_measure`, of one pair on the principal axes of both, or `matrix_measure`, of all pairs at once; a
group is what can be chosen. A new one needs no more than its declaration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ketwork.networks.measures.overlaps import Axes, Overlaps, each

_LEFT = 0.1  # share of the samples that a fit must leave over for its adjustment to mean anything
_NODES = 2000


@dataclass(frozen=True)
class PairMeasure:
    """One number of a pair of layers, the row's and the column's.

    `group` is what it is asked for by. Of `of_pair` and `of_all` one computes it; `distance_of` names the measure whose
    angle it is instead. `itself` is its value of a layer with itself.
    """

    name: str
    title: str
    definition: str
    group: str
    of_pair: Callable[[Pair], float] | None = None
    of_all: Callable[[Pairs], Tensor] | None = None
    distance_of: str | None = None
    itself: Callable[[Axes, int], float] = lambda axes, n: 1.0
    symmetric: bool = False


@dataclass(frozen=True)
class Pair:
    """Two layers on their principal axes: `c` (dₓ, d_y) is C on these, `weights` Tr XᵀX and Tr YᵀY, n the samples."""

    c: Tensor
    x: Axes
    y: Axes
    weights: tuple[float, float]
    n: int
    center: bool

    @cached_property
    def swapped(self) -> Pair:
        """The column's layer with the row's."""
        other = replace(self, c=self.c.mT, x=self.y, y=self.x, weights=self.weights[::-1])
        other.__dict__["swapped"] = self
        return other

    @cached_property
    def parts(self) -> Tensor:
        """What of ‖C‖² each axis of the row's layer has, (dₓ,)."""
        return self.c.square().sum(dim=1)


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs: ‖C‖² (L, L), and where they were computed the layers' axes."""

    overlaps: Overlaps
    squares: Tensor
    axes: list[Axes] | None
    center: bool

    @cached_property
    def hsic(self) -> Tensor:
        """n(n−3) HSIC₁ (Song et al. 2012, JMLR 13:1393) of all pairs from ‖C‖² and row lengths.

        With both means 0 the formula's terms in Σx vanish, and three sums are left.
        """
        n, weights = self.overlaps.n, self.overlaps.weights.cpu()
        lengths = self.overlaps.lengths.cpu()
        product = torch.outer(weights, weights)
        return self.squares - n / (n - 2) * lengths + product / ((n - 1) * (n - 2))


PAIR_MEASURES: dict[str, PairMeasure] = {}
"""All measures of pairs by name, in the order of their columns."""


def groups() -> dict[str, tuple[str, ...]]:
    """What can be asked for, and the matrices that it gives."""
    result: dict[str, tuple[str, ...]] = {}
    for measure in PAIR_MEASURES.values():
        if measure.distance_of is None:
            result[measure.group] = (*result.get(measure.group, ()), measure.name)
    return result


def pair_measure(
    name: str,
    *,
    title: str,
    group: str,
    definition: str,
    itself: Callable[[Axes, int], float] = lambda axes, n: 1.0,
    symmetric: bool = False,
) -> Callable[[Callable[[Pair], float]], Callable[[Pair], float]]:
    """Declares the decorated function of a `Pair` as a measure."""

    def declare(compute: Callable[[Pair], float]) -> Callable[[Pair], float]:
        PAIR_MEASURES[name] = PairMeasure(
            name, title, definition, group, compute, itself=itself, symmetric=symmetric
        )
        return compute

    return declare


def matrix_measure(
    name: str, *, title: str, group: str, definition: str
) -> Callable[[Callable[[Pairs], Tensor]], Callable[[Pairs], Tensor]]:
    """Declares the decorated function of all `Pairs` as a measure."""

    def declare(compute: Callable[[Pairs], Tensor]) -> Callable[[Pairs], Tensor]:
        PAIR_MEASURES[name] = PairMeasure(name, title, definition, group, of_all=compute)
        return compute

    return declare


def similarities(overlaps: Overlaps, wanted: Collection[str], *, center: bool = True) -> dict[str, Tensor]:
    """The matrices of the wanted groups: all layers × all layers, or first × second side.

    `center` is for Bures alone. Cost: CKA O(N² Σd) from rows; the others O(min(d, N)³) a pair.
    """
    size = len(overlaps.constant)
    measures = [PAIR_MEASURES[name] for group, names in groups().items() if group in wanted for name in names]
    by_pair = [measure for measure in measures if measure.of_pair is not None]
    matrices = {m.name: torch.full((size, size), math.nan, dtype=torch.float64) for m in measures}
    axes = None
    if by_pair:
        axes = overlaps.axes()
        squares = _by_pair(overlaps, axes, by_pair, matrices, center)
    else:
        squares = overlaps.squares().cpu()
    pairs = Pairs(overlaps, squares, axes, center)
    for measure in measures:
        if measure.of_all is not None:
            matrices[measure.name] = measure.of_all(pairs).cpu()
    if overlaps.split is None:
        return matrices
    return {name: matrix[: overlaps.split, overlaps.split :].clone() for name, matrix in matrices.items()}


def _by_pair(
    overlaps: Overlaps,
    axes: list[Axes],
    measures: Collection[PairMeasure],
    matrices: dict[str, Tensor],
    center: bool,
) -> Tensor:
    """Fills in the measures of single pairs; returns ‖C‖² of all."""
    squares = torch.diag(torch.stack([layer.values.square().sum() for layer in axes])).cpu()
    weights = [float(weight) for weight in overlaps.weights]

    def row(i: int) -> None:
        if not overlaps.constant[i]:
            for measure in measures:
                matrices[measure.name][i, i] = measure.itself(axes[i], overlaps.n)
        for j, c in overlaps.blocks(i):
            if overlaps.constant[i] or overlaps.constant[j]:
                continue
            squares[i, j] = squares[j, i] = float(c.square().sum())
            pair = Pair(c, axes[i], axes[j], (weights[i], weights[j]), overlaps.n, center)
            swapped = pair.swapped
            for measure in measures:
                assert measure.of_pair is not None
                matrices[measure.name][i, j] = measure.of_pair(pair)
                back = matrices[measure.name][i, j] if measure.symmetric else measure.of_pair(swapped)
                matrices[measure.name][j, i] = back

    each(row, len(axes))
    return squares


@matrix_measure(
    "cka",
    title="debiased CKA",
    group="cka",
    definition="debiased linear CKA: HSIC₁(X,Y)/√(HSIC₁(X,X) HSIC₁(Y,Y)), 0 on average for unrelated layers, below 0 "
    "by chance; features centred",
)
def cka(pairs: Pairs) -> Tensor:
    """HSIC₁ of each pair over the root of those of both layers."""
    return pairs.hsic / torch.outer(pairs.hsic.diagonal(), pairs.hsic.diagonal()).sqrt()


@matrix_measure(
    "cka_biased",
    title="biased CKA",
    group="cka",
    definition="linear CKA ‖XᵀY‖²/(‖XᵀX‖ ‖YᵀY‖) of centred features, which few samples inflate",
)
def cka_biased(pairs: Pairs) -> Tensor:
    """‖C‖² over the root of those of both layers."""
    diagonal = pairs.squares.diagonal()
    return pairs.squares / torch.outer(diagonal, diagonal).sqrt()


@pair_measure(
    "bures",
    title="Bures",
    group="bures",
    definition="normalised Bures similarity, the root fidelity ‖XᵀY‖_*/√(Tr XᵀX Tr YᵀY) of the sample-side states; "
    "features centred unless center=False",
    symmetric=True,
)
def bures(pair: Pair) -> float:
    """‖XᵀY‖_* / √(Tr XᵀX Tr YᵀY); uncentred, with the means put back."""
    if pair.center:
        return _nuclear(pair.c) / math.sqrt(pair.weights[0] * pair.weights[1])
    means = [torch.cat([axes.mean, axes.mean.new_tensor([axes.beside])]) for axes in (pair.x, pair.y)]
    full = pair.n * torch.outer(*means)
    full[:-1, :-1] += pair.c
    total = [
        float(axes.values.sum() + pair.n * mean.square().sum())
        for axes, mean in zip((pair.x, pair.y), means, strict=True)
    ]
    return _nuclear(full) / math.sqrt(total[0] * total[1])


@matrix_measure(
    "bures_null",
    title="Bures, chance level",
    group="bures",
    definition="the root fidelity to expect of layers with the same spectra and nothing in common",
)
def bures_null(pairs: Pairs) -> Tensor:
    """See `null_root_fidelity`; none for uncentred layers."""
    if not pairs.center or pairs.axes is None:
        return torch.full_like(pairs.squares, math.nan)
    return null_root_fidelity([layer.values.cpu() for layer in pairs.axes], pairs.overlaps.n - 1)


@pair_measure(
    "r2",
    title="R²",
    group="r2",
    definition="share of the column's layer that the best linear map (with intercept) of the row's layer explains, "
    "adjusted for the fitted parameters (Ezekiel 1930): 0 on average for unrelated layers; NaN where the fit leaves "
    "less than a tenth of the samples over",
    itself=lambda axes, n: _adjusted(1.0, axes.rank, n),
)
def r2(pair: Pair) -> float:
    """The share that is explained, adjusted."""
    return _adjusted(r2_fit(pair), pair.x.rank, pair.n)


@pair_measure(
    "r2_reverse",
    title="R² reverse",
    group="r2",
    definition="the same with the roles exchanged",
    itself=lambda axes, n: _adjusted(1.0, axes.rank, n),
)
def r2_reverse(pair: Pair) -> float:
    """R² of the swapped pair."""
    return r2(pair.swapped)


@pair_measure(
    "r2_fit",
    title="fit R²",
    group="r2",
    definition="the same share, not adjusted: 1 whenever the row's layer has N − 1 dimensions",
)
def r2_fit(pair: Pair) -> float:
    """‖P Y‖² / ‖Y‖² with P the projection on the row's layer: Σ over its axes of ‖C‖²/λ."""
    rank = pair.x.rank
    return float((pair.parts[:rank] / pair.x.values[:rank]).sum()) / pair.weights[1]


@pair_measure(
    "r2_fit_reverse", title="fit R² reverse", group="r2", definition="the same with the roles exchanged"
)
def r2_fit_reverse(pair: Pair) -> float:
    """The fitted share of the swapped pair."""
    return r2_fit(pair.swapped)


for _name, _of, _title, _definition in (
    (
        "cka_distance",
        "cka",
        "CKA angle",
        "arccos of cka: an angle between 0 (equal up to rotation and scale) and π/2 (unrelated) [rad]",
    ),
    ("bures_distance", "bures", "Bures angle", "arccos of bures, the Bures angle [rad]"),
):
    PAIR_MEASURES[_name] = PairMeasure(_name, _title, _definition, _of, distance_of=_of)


def _nuclear(c: Tensor) -> float:
    """The sum of singular values: roots of the smaller Gram matrix's eigenvalues, faster than an SVD."""
    gram = c @ c.mT if c.shape[0] <= c.shape[1] else c.mT @ c
    values = torch.linalg.eigvalsh(gram)
    noise = values[-1] * len(values) * torch.finfo(values.dtype).eps
    return float(torch.where(values > noise, values, 0.0).sqrt().sum())


def _adjusted(fit: float, rank: int, n: int) -> float:
    """A share that a map of that rank fits, adjusted for its parameters (Ezekiel)."""
    left = n - 1 - rank
    return 1 - (1 - fit) * (n - 1) / left if left >= _LEFT * (n - 1) else math.nan


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
