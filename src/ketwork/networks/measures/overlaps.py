"""What the streamed rows or moments of all layers say of each pair: row lengths, ‖XᵀY‖², XᵀY on principal axes.

Notation: X (N × dₓ) and Y (N × d_y) are two layers' rows on the same samples, centred; C = XᵀY. What compares
layers does not change when either one's features are rotated, so each layer may be brought to its principal
axes first, on whichever side is smaller: XᵀX (dₓ × dₓ) or XXᵀ (N × N).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ketwork.networks.moments import CrossMoments, PairMoments

Result = TypeVar("Result")

_SINGLE = torch.finfo(torch.float32).eps
_DOUBLE = torch.finfo(torch.float64).eps
_CONSTANT = 1e-12  # a centred layer with less than this share of its weight is the same on every sample
_COLUMNS = 4096  # features of a wide layer that are widened to float64 at a time
_GRAM_BYTES = 256 << 20  # at most, of all layers' N × N Gram matrices that are held at a time


@dataclass
class Axes:
    """One layer on its principal axes: eigenvalues of XᵀX from the largest, and how many stand above rounding.

    `mean` is the layer's mean row on these axes, `beside` the length of what of it lies outside of them.
    """

    values: Tensor
    rank: int
    mean: Tensor
    beside: float


class Overlaps(ABC):
    """All pairs of layers; of `split` (not None) only those between the first and the second side.

    weights (L,) is Tr XᵀX = Σ‖x‖², lengths (L, L) is Σ‖x‖²‖y‖², both centred; `constant` says which
    layers put out the same for every sample.
    """

    n: int
    split: int | None
    weights: Tensor
    lengths: Tensor
    constant: list[bool]

    @abstractmethod
    def squares(self) -> Tensor:
        """‖C‖² of all pairs, (L, L), by the shortest way."""

    @abstractmethod
    def axes(self) -> list[Axes]:
        """Every layer's principal axes, O(min(d, N)³) each; `blocks` needs them."""

    @abstractmethod
    def blocks(self, i: int) -> Iterator[tuple[int, Tensor]]:
        """(j, C of layers i and j on their axes) for all later partners j of i. Cost O(N d²) or O(d³) each."""

    def partners(self, i: int) -> range:
        """The later layers that the i-th is compared with."""
        count = len(self.weights)
        first = i + 1 if self.split is None else self.split if i < self.split else count
        return range(first, count)


def overlaps_of(pairs: PairMoments) -> Overlaps:
    """The overlaps of all pairs, which take over what `pairs` holds."""
    pairs.flush()
    return OverlapsOfRows(pairs) if pairs.cross is None else OverlapsOfMoments(pairs.cross)


class OverlapsOfRows(Overlaps):
    """From the rows of all layers."""

    def __init__(self, pairs: PairMoments) -> None:
        self.n, self.split = pairs.n, pairs.split
        self._gram_bytes = min(_GRAM_BYTES, pairs.memory)
        self._rows = [pairs.rows(i) for i in range(len(pairs.keys))]
        self._means = [rows.mean(dim=0, dtype=torch.float64) for rows in self._rows]
        lengths = []
        for i, rows in enumerate(self._rows):
            lengths.append(rows.new_zeros(self.n, dtype=torch.float64))
            for x in self._centred(i):
                lengths[i] += x.square().sum(dim=1)
        of_samples = torch.stack(lengths, dim=1)  # (n, L)
        self.lengths, self.weights = of_samples.mT @ of_samples, of_samples.sum(dim=0)
        self.constant = _constant(self.weights, self._means, self.n)

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
        axes, factors = zip(*each(self._axes, len(self._rows)), strict=True)
        widths = [factor.shape[1] for factor in factors]
        self._starts = [sum(widths[:i]) for i in range(len(widths) + 1)]
        self._factors = torch.cat(factors, dim=1)  # (n, Σ min(n, d))
        self._rows.clear()
        return list(axes)

    def blocks(self, i: int) -> Iterator[tuple[int, Tensor]]:
        """See `Overlaps`."""
        partners, starts = self.partners(i), self._starts
        if not partners:
            return
        first = starts[partners.start]
        product = self._factors[:, starts[i] : starts[i + 1]].mT @ self._factors[:, first:]
        for j in partners:
            yield j, product[:, starts[j] - first : starts[j + 1] - first]

    def _centred(self, i: int) -> Iterator[Tensor]:
        """The centred rows of a layer in float64, some features at a time."""
        pieces = self._rows[i].split(_COLUMNS, dim=1)
        for piece, mean in zip(pieces, self._means[i].split(_COLUMNS), strict=True):
            yield piece.double() - mean

    def _axes(self, i: int) -> tuple[Axes, Tensor]:
        """A layer's axes and its centred rows on them, (n, min(n, d))."""
        mean, (n, d) = self._means[i], self._rows[i].shape
        if d <= n:
            x = self._rows[i].double() - mean
            values, vectors = _eigen(x.mT @ x)
            on_axes, factor = vectors.mT @ mean, x @ vectors
        else:
            gram, along = mean.new_zeros(n, n), mean.new_zeros(n)
            for x, part in zip(self._centred(i), mean.split(_COLUMNS), strict=True):
                gram += x @ x.mT
                along += x @ part
            values, vectors = _eigen(gram)
            factor = vectors * values.sqrt()
            above = values > values[0] * n * _DOUBLE
            on_axes = torch.where(above, vectors.mT @ along / torch.where(above, values, 1.0).sqrt(), 0.0)
        # Rows are rounded to float32: an axis of nothing but rounding has some d eps² of the largest one's weight.
        rank = int((values > values[0] * max(n, d) * (4 * _SINGLE) ** 2).sum())
        beside = max(float(mean.square().sum() - on_axes.square().sum()), 0.0) ** 0.5
        return Axes(values, min(rank, n - 1), on_axes, beside), factor


class OverlapsOfMoments(Overlaps):
    """From the cross moments of all pairs."""

    def __init__(self, cross: CrossMoments) -> None:
        self.n, self.split, self._cross = cross.n, cross.split, cross
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

    def squares(self) -> Tensor:
        """See `Overlaps`."""
        total = torch.full_like(self.lengths, torch.nan)
        for i in range(len(self.constant)):
            for j in (i, *self.partners(i)):
                total[i, j] = total[j, i] = self._centred(i, j).square().sum()
        return total

    def axes(self) -> list[Axes]:
        """See `Overlaps`."""
        axes, vectors = zip(*each(self._axes, len(self._means)), strict=True)
        self._vectors = vectors
        return list(axes)

    def blocks(self, i: int) -> Iterator[tuple[int, Tensor]]:
        """See `Overlaps`."""
        for j in self.partners(i):
            yield j, self._vectors[i].mT @ self._centred(i, j) @ self._vectors[j]

    def _axes(self, i: int) -> tuple[Axes, Tensor]:
        """A layer's axes, and the eigenvectors that they are."""
        values, vectors = _eigen(self._centred(i, i))
        # The products ran in float32, which hides axes lighter than its rounding.
        rank = int((values > values[0] * _SINGLE * len(values) ** 0.5).sum())
        mean = vectors.mT @ (self._cross.origin[i] + self._means[i])
        return Axes(values, min(rank, self.n - 1), mean, 0.0), vectors

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


def each(work: Callable[[int], Result], count: int) -> list[Result]:
    """`work` of 0 … count − 1, on as many threads as torch uses, each with one thread of its own.

    Eigenvalue problems of a few hundred dimensions gain little from two threads, and lose where cores are busy.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, range(count)))
    finally:
        torch.set_num_threads(threads)


def _constant(weights: Tensor, means: list[Tensor], n: int) -> list[bool]:
    offsets = [n * float(mean.square().sum()) for mean in means]
    return [float(w) <= _CONSTANT * offset for w, offset in zip(weights, offsets, strict=True)]


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues from the largest, none negative, and eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0).clamp(min=0), vectors.flip(1)
