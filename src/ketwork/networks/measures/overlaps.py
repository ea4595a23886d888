"""What the streamed rows or moments of all layers say of each pair: row lengths, ‖XᵀY‖², XᵀY on principal axes.

Notation: X (N × dₓ) and Y (N × d_y) are two layers' rows on the same samples, centred; C = XᵀY. What compares
layers does not change when either one's features are rotated, so each layer may be brought to its principal
axes first, on whichever side is smaller: XᵀX (dₓ × dₓ) or XXᵀ (N × N).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.measures.clusters import Clusters, ClusterSums
from ketwork.networks.measures.threads import in_threads
from ketwork.networks.moments import CrossMoments, KeptSamples, PairMoments, first_samples

_SINGLE = torch.finfo(torch.float32).eps
_DOUBLE = torch.finfo(torch.float64).eps
_CONSTANT = 1e-12  # a centred layer with less than this share of its weight is the same on every sample
_COLUMNS = 4096  # features of a wide layer that are widened to float64 at a time
_GRAM_BYTES = 256 << 20  # at most, of all layers' N × N Gram matrices that are held at a time
_KEPT_ROWS = 4096  # at most, of the samples that standard errors are computed from
_NARROW = 96  # axes, from which on singular vectors are taken of the leading ones
_LOST = 5e-3  # of a layer's weight, in the others
_SCALES = (
    100.0  # the largest feature over the smallest, from which on axes are judged with all features alike
)


@dataclass
class Axes:
    """One layer on its principal axes: eigenvalues of XᵀX from the largest, and how many stand above rounding.

    `mean` is the layer's mean row on these axes, `beside` the length of what of it lies outside of them. Where features
    are of very different sizes, `rank` counts the axes of features of size 1 each, and `whitening` (rank, d) turns rows
    on the principal axes into uncorrelated ones of length 1; otherwise dividing by the roots of `values` does.
    """

    values: Tensor
    rank: int
    mean: Tensor
    beside: float
    whitening: Tensor | None = None

    @cached_property
    def leading(self) -> int:
        """The axes that have all but half a per cent of the weight; all of a narrow layer."""
        if len(self.values) <= _NARROW:
            return len(self.values)
        lost = 1 - self.values.cumsum(0) / self.values.sum().clamp(min=torch.finfo(torch.float64).tiny)
        return min(max(int((lost > _LOST).sum()) + 1, _NARROW), len(self.values))

    def whitened(self, products: Tensor) -> Tensor:
        """Eᵀ Z of the products Xᵀ Z on the axes, (d, …), with E an orthonormal basis of the layer's columns."""
        if self.whitening is not None:
            return self.whitening @ products
        return products[: self.rank] / self.values[: self.rank, None].sqrt()


@dataclass(frozen=True)
class Kept:
    """Samples that are there in full: which rows are of which sample, and every layer's centred rows (R, d)."""

    clusters: Clusters
    rows: list[Tensor]


class Overlaps(ABC):
    """All pairs of layers; of `split` (not None) only those between the first and the second side.

    weights (L,) is Tr XᵀX = Σ‖x‖², lengths (L, L) is Σ‖x‖²‖y‖², both centred; `constant` says which
    layers put out the same for every sample. There are n rows of `samples` independent samples; with `clustered` these
    have several rows each.
    """

    n: int
    samples: int
    clustered: bool
    split: int | None
    weights: Tensor
    lengths: Tensor
    constant: list[bool]

    @abstractmethod
    def kept(self) -> Kept | None:
        """Some samples in full, their rows on the principal axes where these are wanted; None of none."""

    @property
    def unknown(self) -> str:
        """Why `kept` has none."""
        return "the memory holds no samples in full, or an older version of ketwork gathered the data"

    @abstractmethod
    def within(self) -> ClusterSums | None:
        """The sums over rows of one sample; None where every sample is one row."""

    @abstractmethod
    def along(self, i: int) -> Iterator[tuple[int, Tensor]]:
        """(j, xᵀ C y of the kept rows) for the i-th layer itself and all its later partners."""

    @abstractmethod
    def squares(self) -> Tensor:
        """‖C‖² of all pairs, (L, L), by the shortest way."""

    @abstractmethod
    def axes(self) -> list[Axes]:
        """Every layer's principal axes, O(min(d, N)³) each; `block` needs them."""

    @abstractmethod
    def block(self, i: int, j: int) -> Tensor:
        """C of layers i and j on their axes. Cost O(N d²) or O(d³)."""

    def nearest(self) -> list[tuple[int, int]]:
        """All pairs (i, j) with j a later partner of i, those first whose layers stand nearest to each other."""
        first = self.split or 0
        pairs = [(i, j) for i in range(len(self.weights)) for j in self.partners(i)]
        return sorted(pairs, key=lambda pair: (abs(pair[1] - first - pair[0]), pair))

    def partners(self, i: int) -> range:
        """The later layers that the i-th is compared with."""
        count = len(self.weights)
        first = i + 1 if self.split is None else self.split if i < self.split else count
        return range(first, count)


def overlaps_of(pairs: PairMoments) -> Overlaps:
    """The overlaps of all pairs, which take over what `pairs` holds."""
    pairs.flush()
    return OverlapsOfRows(pairs) if pairs.cross is None else OverlapsOfMoments(pairs.cross, pairs)


class OverlapsOfRows(Overlaps):
    """From the rows of all layers."""

    def __init__(self, pairs: PairMoments) -> None:
        self.n, self.split, self.clustered = pairs.n, pairs.split, pairs.clustered
        self._gram_bytes = min(_GRAM_BYTES, pairs.memory)
        self._rows = [pairs.rows(i) for i in range(len(pairs.keys))]
        self._means = [rows.mean(dim=0, dtype=torch.float64) for rows in self._rows]
        self._keys = pairs.keys_of_rows
        self.samples = len(self._keys.unique()) if self.clustered else self.n
        most = min(_KEPT_ROWS, self._gram_bytes // (8 * self.n * len(self._rows)))
        self._kept = first_samples(self._keys, self.clustered, most)
        self._factors: Tensor | None = None
        self._grams: list[Tensor] = []
        lengths = []
        for i, rows in enumerate(self._rows):
            lengths.append(rows.new_zeros(self.n, dtype=torch.float64))
            for x in self._centred(i):
                lengths[i] += x.square().sum(dim=1)
        of_samples = torch.stack(lengths, dim=1)  # (n, L)
        self.lengths, self.weights = of_samples.mT @ of_samples, of_samples.sum(dim=0)
        self.constant = _constant(self.weights, self._means, self.n)

    def kept(self) -> Kept | None:
        """See `Overlaps`."""
        if not len(self._kept):
            return None
        clusters = Clusters.from_keys(self._keys[self._kept], self.clustered)
        if self._factors is None:
            rows = [
                torch.cat([x[self._kept] for x in self._centred(i)], dim=1) for i in range(len(self._rows))
            ]
        else:
            rows = [self._factors[self._kept, a:b] for a, b in itertools.pairwise(self._starts)]
        return Kept(clusters, rows)

    def within(self) -> ClusterSums | None:
        """See `Overlaps`."""
        return self._within

    @cached_property
    def _within(self) -> ClusterSums | None:
        if not self.clustered:
            return None
        rows = [torch.cat(list(self._centred(i)), dim=1) for i in range(len(self._rows))]
        return ClusterSums.from_rows(rows, Clusters.from_keys(self._keys), self.n, self.samples)

    def along(self, i: int) -> Iterator[tuple[int, Tensor]]:
        """See `Overlaps`."""
        if not self._grams:
            for rows in range(len(self._rows)):
                gram = self.weights.new_zeros(len(self._kept), self.n)
                for x in self._centred(rows):
                    gram += x[self._kept] @ x.mT
                self._grams.append(gram)
        for j in (i, *self.partners(i)):
            yield j, (self._grams[i] * self._grams[j]).sum(dim=1)

    def squares(self) -> Tensor:
        """See `Overlaps`."""
        # ‖XᵀY‖² = Σ (XXᵀ)(YYᵀ): O(n² Σd + L² n²), where the pairs' C would cost O(n (Σd)²).
        count, n = len(self._rows), self.n
        total = self.lengths.new_zeros(count, count)
        step = max(self._gram_bytes // (8 * count * n), 1)
        for start in range(0, n, step):
            block = slice(start, start + step)
            grams = total.new_zeros(count, min(step, n - start), n)
            for i, gram in enumerate(grams):
                for x in self._centred(i):
                    gram += x[block] @ x.mT
            flat = grams.flatten(1)
            total += flat @ flat.mT
        return total

    def axes(self) -> list[Axes]:
        """See `Overlaps`."""
        _ = self._within  # of the rows, which the axes take the place of
        axes, factors = zip(*in_threads(self._axes, range(len(self._rows))), strict=True)
        widths = [factor.shape[1] for factor in factors]
        self._starts = [sum(widths[:i]) for i in range(len(widths) + 1)]
        self._factors = torch.cat(factors, dim=1)  # (n, Σ min(n, d))
        self._rows.clear()
        return list(axes)

    def block(self, i: int, j: int) -> Tensor:
        """See `Overlaps`."""
        assert self._factors is not None
        x, y = (self._factors[:, self._starts[place] : self._starts[place + 1]] for place in (i, j))
        return x.mT @ y

    def _centred(self, i: int) -> Iterator[Tensor]:
        """The centred rows of a layer in float64, some features at a time."""
        pieces = self._rows[i].split(_COLUMNS, dim=1)
        for piece, mean in zip(pieces, self._means[i].split(_COLUMNS), strict=True):
            yield piece.double() - mean

    def _axes(self, i: int) -> tuple[Axes, Tensor]:
        """A layer's axes and its centred rows on them, (n, min(n, d))."""
        mean, (n, d) = self._means[i], self._rows[i].shape
        scaled = None
        if d <= n:
            x = self._rows[i].double() - mean
            square = x.mT @ x
            values, vectors = _eigen(square)
            on_axes, factor = vectors.mT @ mean, x @ vectors
            scaled = _of_features(square, vectors, n)
        else:
            gram, along = mean.new_zeros(n, n), mean.new_zeros(n)
            for x, part in zip(self._centred(i), mean.split(_COLUMNS), strict=True):
                gram += x @ x.mT
                along += x @ part
            values, vectors = _eigen(gram)
            factor = vectors * values.sqrt()
            above = values > values[0] * n * _DOUBLE
            on_axes = torch.where(above, vectors.mT @ along / torch.where(above, values, 1.0).sqrt(), 0.0)
        beside = max(float(mean.square().sum() - on_axes.square().sum()), 0.0) ** 0.5
        rank = min(_rank(values, d), n - 1)
        return Axes(values, rank if scaled is None else len(scaled), on_axes, beside, scaled), factor


class OverlapsOfMoments(Overlaps):
    """From the cross moments of all pairs."""

    def __init__(self, cross: CrossMoments, pairs: PairMoments) -> None:
        self.n, self.split, self._cross = cross.n, cross.split, cross
        self.samples, self.clustered = pairs.samples, pairs.clustered
        self._vectors: tuple[Tensor, ...] | None = None
        count = len(cross.dims)
        self._means = [cross.mean(i) for i in range(count)]  # less the origins
        offsets = torch.stack([mean.square().sum() for mean in self._means])
        self.weights = (cross.lengths - self.n * offsets).clamp(min=0)
        self.lengths = torch.full_like(cross.lengths_of_pairs, torch.nan)
        for i in range(count):
            for j in (i, *self.partners(i)):
                self.lengths[i, j] = self.lengths[j, i] = self._centred_lengths(i, j, offsets)
        means = [origin + mean for origin, mean in zip(cross.origin, self._means, strict=True)]
        self.constant = _constant(self.weights, means, self.n)
        self._features = None if pairs.kept is None else self._of_samples(pairs.kept, means)

    def kept(self) -> Kept | None:
        """See `Overlaps`."""
        if self._features is None or self._vectors is None:
            return self._features
        rows = [x @ vectors for x, vectors in zip(self._features.rows, self._vectors, strict=True)]
        return Kept(self._features.clusters, rows)

    def within(self) -> ClusterSums | None:
        """See `Overlaps`."""
        if not self.clustered or self._features is None:
            return None
        return ClusterSums.from_rows(self._features.rows, self._features.clusters, self.n, self.samples)

    def along(self, i: int) -> Iterator[tuple[int, Tensor]]:
        """See `Overlaps`."""
        if self._features is None:
            return
        rows = self._features.rows
        for j in (i, *self.partners(i)):
            yield j, ((rows[i] @ self._centred(i, j)) * rows[j]).sum(dim=1)

    @staticmethod
    def _of_samples(kept: KeptSamples, means: list[Tensor]) -> Kept | None:
        if not len(kept.keys):
            return None
        rows = [part.double() - mean for part, mean in zip(kept.rows, means, strict=True)]
        return Kept(Clusters.from_keys(kept.keys, kept.clustered), rows)

    def squares(self) -> Tensor:
        """See `Overlaps`."""
        total = torch.full_like(self.lengths, torch.nan)
        for i in range(len(self.constant)):
            for j in (i, *self.partners(i)):
                total[i, j] = total[j, i] = self._centred(i, j).square().sum()
        return total

    def axes(self) -> list[Axes]:
        """See `Overlaps`."""
        axes, vectors = zip(*in_threads(self._axes, range(len(self._means))), strict=True)
        self._vectors = vectors
        return list(axes)

    def block(self, i: int, j: int) -> Tensor:
        """See `Overlaps`."""
        assert self._vectors is not None
        return self._vectors[i].mT @ self._centred(i, j) @ self._vectors[j]

    def _axes(self, i: int) -> tuple[Axes, Tensor]:
        """A layer's axes, and the eigenvectors that they are."""
        square = self._centred(i, i)
        values, vectors = _eigen(square)
        scaled = _of_features(square, vectors, self.n)
        mean = vectors.mT @ (self._cross.origin[i] + self._means[i])
        rank = min(_rank(values, len(values)), self.n - 1)
        return Axes(values, rank if scaled is None else len(scaled), mean, 0.0, scaled), vectors

    def _centred(self, i: int, j: int) -> Tensor:
        return self._cross.raw(i, j) - self.n * torch.outer(self._means[i], self._means[j])

    def _centred_lengths(self, i: int, j: int, offsets: Tensor) -> Tensor:
        """Σ ‖x−μ‖²‖y−ν‖² from sums of uncentred rows: expand ‖x−μ‖² = ‖x‖² − 2μx + ‖μ‖²."""
        cross, mu, nu = self._cross, self._means[i], self._means[j]
        return (
            cross.lengths_of_pairs[i, j]
            - 2 * nu @ cross.of_lengths(i, j)
            - 2 * mu @ cross.of_lengths(j, i)
            + offsets[j] * cross.lengths[i]
            + offsets[i] * cross.lengths[j]
            + 4 * mu @ cross.raw(i, j) @ nu
            - 3 * self.n * offsets[i] * offsets[j]
        )


def _constant(weights: Tensor, means: list[Tensor], n: int) -> list[bool]:
    offsets = [n * float(mean.square().sum()) for mean in means]
    return [float(w) <= _CONSTANT * offset for w, offset in zip(weights, offsets, strict=True)]


def _rank(values: Tensor, d: int) -> int:
    """The eigenvalues above rounding: rows in float32 give an axis of nothing else d eps² of the largest, at most."""
    return int((values > values[0] * d * (4 * _SINGLE) ** 2).sum())


def _of_features(square: Tensor, vectors: Tensor, n: int) -> Tensor | None:
    """The whitening of rows on the axes `vectors` (d, d), with XᵀX as `square`, where features differ much in size.

    Features of other units are of other sizes, each with digits of its own: what rounding leaves of a light one is
    judged by its own size. With D these sizes and D⁻¹XᵀXD⁻¹ = VΛVᵀ it is Λ^(−½) VᵀD⁻¹ times the axes, (rank, d).
    """
    sizes = square.diagonal().clamp(min=0).sqrt()
    there = sizes[sizes > 0]
    if not len(there) or float(there.max()) < _SCALES * float(there.min()):
        return None
    sizes = torch.where(sizes > 0, sizes, 1.0)
    values, axes = _eigen(square / torch.outer(sizes, sizes))
    rank = min(_rank(values, len(values)), n - 1)
    return (axes[:, :rank] / values[:rank].sqrt()).mT @ (vectors / sizes[:, None])


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues from the largest, none negative, and eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0).clamp(min=0), vectors.flip(1)
