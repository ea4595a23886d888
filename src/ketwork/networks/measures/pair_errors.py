"""Standard errors of measures of pairs of layers, from samples kept in full; see docs/errors.md.

The influence ψ of a sample, the first-order change of a number as the sample enters, is evaluated on the kept samples
with the moments of all: the number varies between data sets by Var(ψ)/n, n counting samples, not positions. Between
unrelated layers ψ itself is of chance alone, which Var(ψ)/n counts twice (Efron & Stein 1981): `excess` is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.measures.clusters import Clusters
from ketwork.networks.measures.intervals import student
from ketwork.networks.measures.overlaps import Axes, Kept, Overlaps

FEWEST_KEPT = 8
"""Samples below which nothing is said of how much they differ."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The kept samples of all layers, of `samples` in all, with what is computed of each layer once.

    `rows` are on the layers' principal axes where there are `axes`.
    """

    clusters: Clusters
    rows: list[Tensor]
    axes: list[Axes] | None
    samples: int
    n: int

    @classmethod
    def from_overlaps(cls, overlaps: Overlaps, axes: list[Axes] | None) -> Evidence | None:
        """The samples that were kept; None where there are fewer than two."""
        kept: Kept | None = overlaps.kept()
        if kept is None or kept.clusters.count < 2:
            return None
        return cls(kept.clusters, kept.rows, axes, overlaps.samples, overlaps.n)

    @property
    def unknown(self) -> str | None:
        """Why nothing is said of how much the samples differ; None where it is."""
        if self.clusters.count >= FEWEST_KEPT:
            return None
        if self.samples < FEWEST_KEPT:
            return f"{self.samples} samples, fewer than {FEWEST_KEPT}, do not show how much samples differ"
        return f"the memory holds {self.clusters.count} samples in full, fewer than {FEWEST_KEPT}"

    @property
    def single(self) -> bool:
        """Whether every sample is one row."""
        return self.clusters.longest == 1

    @cached_property
    def whitened(self) -> list[Tensor]:
        """The rows in uncorrelated coordinates of length 1 over all samples, (R, rank) a layer."""
        assert self.axes is not None
        return [axes.whitened(rows.mT).mT for axes, rows in zip(self.axes, self.rows, strict=True)]

    @cached_property
    def leverages(self) -> list[Tensor]:
        """The share of each row that a linear map fits to the row itself, (R,) a layer."""
        return [rows.square().sum(dim=1).clamp(max=1 - 1e-6) for rows in self.whitened]

    @cached_property
    def lengths(self) -> list[Tensor]:
        """‖x‖² of every row, (R,) a layer."""
        return [rows.square().sum(dim=1) for rows in self.rows]

    @cached_property
    def within(self) -> list[Tensor]:
        """The inner products of each sample's rows, (samples, T, T) a layer."""
        return [self.clusters.grams(rows) for rows in self.rows]

    @cached_property
    def leverages_within(self) -> list[Tensor]:
        """The same of the whitened rows, their mean over samples, (T, T) a layer."""
        return [self.clusters.grams(rows).mean(dim=0) for rows in self.whitened]

    @cached_property
    def squares(self) -> tuple[Tensor, Tensor]:
        """The means over pairs of samples of k²l² and k³l, (L, L), with k, l the inner products of two layers' rows."""
        products = torch.stack([_beside(rows) for rows in self.rows])
        second = products.square()
        pairs = self.pairs
        return second @ second.mT / pairs, (second * products) @ products.mT / pairs

    @cached_property
    def fits(self) -> list[Tensor]:
        """h² of pairs of rows, (R²,) a layer, with h the inner product of the whitened rows; 0 of a row with itself."""
        return [_beside(rows).square() for rows in self.whitened]

    @property
    def pairs(self) -> int:
        """The ordered pairs of different samples."""
        return self.clusters.count * (self.clusters.count - 1)

    def stderr(self, shares: Tensor, excess: float = 0.0, freedom: float = 1.0) -> float:
        """The error of a mean over samples of ψ, (samples,), its variance less `excess`, but no less than half.

        What is of first order (without both times the excess) grows by one over `freedom`, the share of the samples
        that fitted parameters leave over. The interval is Student's.
        """
        if self.unknown is not None:
            return math.nan
        variance = float(shares.var()) / self.samples
        chance = min(excess, variance / 2)
        factor = student((shares - shares.mean()).square())
        return factor * math.sqrt((variance - 2 * chance) / freedom + chance)

    def of_rows(self, shares: Tensor) -> Tensor:
        """ψ of each sample, of a mean over rows with these shares (R,)."""
        return self.clusters.sums(shares) * (self.samples / self.n)


def cka_errors(evidence: Evidence, hsic: Tensor, along: Sequence[dict[int, Tensor]]) -> Tensor:
    """The standard errors of debiased CKA, (L, L), from HSIC and xᵀ C y of the kept rows by pair.

    ψ of HSIC is 2(h₁ − HSIC), with h₁ the mean of k l over the other samples; those of the ratio follow from the three.
    """
    n, count = evidence.samples, len(hsic)
    unit = hsic / (n * (n - 1))
    errors = torch.full_like(hsic, math.nan)
    single = evidence.single

    def projection(i: int, j: int) -> Tensor:
        own = (evidence.within[i] * evidence.within[j]).sum(dim=(1, 2))
        return (evidence.clusters.sums(along[i][j]) - own) / (n - 1)

    alone = [projection(i, i) for i in range(count)]
    for i in range(count):
        for j in along[i]:
            x, y, both = float(unit[i, i]), float(unit[j, j]), float(unit[i, j])
            if j == i or not (x > 0 and y > 0):
                continue
            a, b, root = both / x, both / y, math.sqrt(x * y)
            shares = 2 * (projection(i, j) - a / 2 * alone[i] - b / 2 * alone[j]) / root
            excess = 0.0
            if single:
                second, third = evidence.squares
                kernel = (1 + a * b / 2) * second[i, j] + a * a / 4 * second[i, i] + b * b / 4 * second[j, j]
                kernel = kernel - a * third[i, j] - b * third[j, i]
                beyond = float(kernel) / (x * y) - float(shares.var()) / 2
                excess = 2 * max(beyond, 0.0) / n**2
            errors[i, j] = errors[j, i] = evidence.stderr(shares, excess)
    errors.fill_diagonal_(0.0)
    return errors


def r2_error(
    evidence: Evidence,
    i: int,
    j: int,
    *,
    explained: Tensor,
    weight: float,
    value: float,
    freedom: float,
) -> float:
    """The standard error of the adjusted share of layer j that layer i explains, `freedom` of the samples left over.

    `explained` (rank, d) is what a whitened row predicts of j's row, `weight` Σ‖y‖². A row's residual without itself in
    the fit is (y − ŷ)/(1 − h), h its leverage: deleting the row changes Σ‖y − ŷ‖² by ‖y − ŷ‖²/(1 − h).
    """
    residual = evidence.rows[j] - evidence.whitened[i] @ explained
    left = residual.square().sum(dim=1) / (1 - evidence.leverages[i])
    shares = evidence.of_rows((1 - value) * evidence.lengths[j] - left) * evidence.n / weight
    excess = 0.0
    if evidence.single:
        chance = float(evidence.fits[i] @ _beside(residual).square()) / evidence.pairs
        excess = 2 * chance * (evidence.samples / weight) ** 2
    return evidence.stderr(shares, excess, freedom)


def parameters(evidence: Evidence, i: int, j: int) -> float:
    """How many parameters of as many independent samples a map of layer i to an unrelated layer j is worth.

    The rank, where every sample is one row. Else chance explains Σ Tr H_s K_s of Σ Tr K_s, with H_s the leverages
    within a sample and K_s the inner products of j's rows, which are taken at their means: that many over n.
    """
    mean = evidence.within[j].mean(dim=0)
    trace = float(mean.diagonal().sum())
    return (
        evidence.samples * float((evidence.leverages_within[i] * mean).sum()) / trace
        if trace > 0
        else math.nan
    )


def independent_rows(evidence: Evidence, i: int, j: int) -> float:
    """How many independent rows would give two unrelated layers as large a ‖C‖² as the samples do: Σx Σy / Σ K·L."""
    x, y = (evidence.within[layer].mean(dim=0) for layer in (i, j))
    both = float((x * y).sum())
    traces = float(x.diagonal().sum() * y.diagonal().sum())
    return traces / both * (evidence.samples - 1) if both > 0 else math.nan


def _beside(rows: Tensor) -> Tensor:
    """The inner products of different rows, (R²,), 0 of a row with itself."""
    gram = rows @ rows.mT
    gram.fill_diagonal_(0.0)
    return gram.flatten()
