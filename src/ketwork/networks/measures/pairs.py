"""The registry of measures of pairs of layers, and what such a measure is computed from.

Notation as in `overlaps`: X, Y centred rows of two layers on N samples, C = XᵀY, λ the eigenvalues of XᵀX. A measure is
declared by `pair_measure`, of one pair on the principal axes of both, or `matrix_measure`, of all pairs at once; a
group is what can be chosen. A new one needs no more than its declaration: tables, records, pages and plots have it with
its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.measures.nuclear import Nuclear, nuclear_norm
from ketwork.networks.measures.overlaps import Axes, Overlaps
from ketwork.networks.measures.pair_errors import Evidence
from ketwork.quantum import Estimate

_FEWEST = 4  # samples, of which HSIC takes four different ones


@dataclass(frozen=True)
class PairMeasure:
    """One number of a pair of layers, the row's and the column's.

    `group` is the name in `measures=`. Of `of_pair` and `of_all` one computes it, the first with its standard error,
    the second beside `errors`; `distance_of` names the measure whose angle it is instead. `itself` is its value of a
    layer with itself. Where `stderr` is False it has no standard error: it is of the samples alone, or a chance level.
    `scattered` says that a random projection of the features changes it either way, and does not lower it.
    """

    name: str
    title: str
    definition: str
    group: str
    of_pair: Callable[[Pair], Estimate] | None = None
    of_all: Callable[[Pairs], Tensor] | None = None
    errors: Callable[[Pairs], Tensor] | None = None
    stderr: bool = False
    distance_of: str | None = None
    itself: Callable[[Axes, int], float] = lambda axes, n: 1.0
    symmetric: bool = False
    scattered: bool = False


@dataclass(frozen=True)
class Pair:
    """Two layers on their principal axes: `c` (dₓ, d_y) is C on these, `weights` Tr XᵀX and Tr YᵀY, n the rows.

    `places` are where the two are among all layers, `evidence` the samples that were kept; `null` is the chance level
    of Bures similarity (NaN: not known).
    """

    c: Tensor
    x: Axes
    y: Axes
    weights: tuple[float, float]
    n: int
    center: bool
    places: tuple[int, int] = (0, 0)
    evidence: Evidence | None = None
    null: float = math.nan

    @cached_property
    def swapped(self) -> Pair:
        """The column's layer with the row's."""
        other = replace(
            self,
            c=self.c.mT,
            x=self.y,
            y=self.x,
            weights=self.weights[::-1],
            places=self.places[::-1],
        )
        other.__dict__["swapped"] = self
        return other

    @cached_property
    def explained(self) -> Tensor:
        """What the row's layer, whitened, predicts of the column's, (rank, d_y)."""
        return self.x.whitened(self.c)

    @cached_property
    def fit(self) -> float:
        """‖P Y‖² / ‖Y‖² with P the projection on the row's layer."""
        return float(self.explained.square().sum()) / self.weights[1]

    @cached_property
    def nuclear(self) -> Nuclear:
        """‖XᵀY‖_* over the root of both layers' weights, with its error and bias."""
        rows = None if self.evidence is None else [self.evidence.rows[place] for place in self.places]
        if self.center:
            return nuclear_norm(self.c, self.weights, rows, self.evidence, (self.x.leading, self.y.leading))
        means = [torch.cat([axes.mean, axes.mean.new_tensor([axes.beside])]) for axes in (self.x, self.y)]
        full = self.n * torch.outer(*means)
        full[:-1, :-1] += self.c
        total = [
            float(axes.values.sum() + self.n * mean.square().sum())
            for axes, mean in zip((self.x, self.y), means, strict=True)
        ]
        if rows is not None:
            rows = [
                torch.nn.functional.pad(part, (0, 1)) + mean for part, mean in zip(rows, means, strict=True)
            ]
        return nuclear_norm(full, (total[0], total[1]), rows, self.evidence, center=False)


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs: ‖C‖² (L, L), and where they were computed the layers' axes.

    `evidence` are the samples that were kept, `along` xᵀ C y of their rows by the places of both layers, `nulls` (L, L)
    the chance levels of Bures similarity, where they were computed.
    """

    overlaps: Overlaps
    squares: Tensor
    axes: list[Axes] | None
    center: bool
    evidence: Evidence | None = None
    along: list[dict[int, Tensor]] = field(default_factory=list)
    nulls: Tensor | None = None

    @cached_property
    def hsic(self) -> Tensor:
        """HSIC₁ (Song et al. 2012, JMLR 13:1393) of all pairs from ‖C‖² and row lengths, times n(n−3).

        With both means 0 the formula's terms in Σx vanish, and three sums are left. Where samples have several rows,
        it is of rows of different samples (see `clusters`), times the number of their pairs.
        """
        overlaps = self.overlaps
        clusters = overlaps.within() if overlaps.samples >= _FEWEST else None
        if clusters is not None:
            return self.squares + clusters.offsets().cpu()
        if overlaps.clustered:  # nothing is known of what the rows of a sample have in common
            return torch.full_like(self.squares, math.nan)
        n, weights = overlaps.n, overlaps.weights.cpu()
        lengths = overlaps.lengths.cpu()
        product = torch.outer(weights, weights)
        return self.squares - n / (n - 2) * lengths + product / ((n - 1) * (n - 2))


PAIR_MEASURES: dict[str, PairMeasure] = {}
"""All measures of pairs by name, in the order of their columns."""


def groups() -> dict[str, tuple[str, ...]]:
    """The names in `measures=`, and the matrices that each gives."""
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
    stderr: bool = True,
) -> Callable[[Callable[[Pair], Estimate]], Callable[[Pair], Estimate]]:
    """Declares the decorated function of a `Pair` as a measure."""

    def declare(compute: Callable[[Pair], Estimate]) -> Callable[[Pair], Estimate]:
        PAIR_MEASURES[name] = PairMeasure(
            name, title, definition, group, compute, itself=itself, symmetric=symmetric, stderr=stderr
        )
        return compute

    return declare


def matrix_measure(
    name: str,
    *,
    title: str,
    group: str,
    definition: str,
    errors: Callable[[Pairs], Tensor] | None = None,
    scattered: bool = False,
) -> Callable[[Callable[[Pairs], Tensor]], Callable[[Pairs], Tensor]]:
    """Declares the decorated function of all `Pairs` as a measure, `errors` as its standard errors."""

    def declare(compute: Callable[[Pairs], Tensor]) -> Callable[[Pairs], Tensor]:
        PAIR_MEASURES[name] = PairMeasure(
            name,
            title,
            definition,
            group,
            of_all=compute,
            errors=errors,
            stderr=errors is not None,
            scattered=scattered,
        )
        return compute

    return declare
