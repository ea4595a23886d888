"""What debiased CKA leaves out where samples have several rows: sums over rows of one sample, for all pairs of layers.

Notation: x_t, y_t the centred rows of two layers, s_x = Σ x_t over the rows of one sample, C_s = Σ x_t y_tᵀ, C = Σ C_s.
HSIC is the mean of k(i,j) l(i,j) − 2 k(i,j) l(i,q) + k(i,j) l(q,r) over rows i, j, q, r of different samples, with
k and l the inner products; with one row a sample it is that of Song et al. (2012). The three sums follow from

    W = Σ‖C_s‖², R = Σ s_xᵀ C_s s_y, Q = Σ‖s_x‖²‖s_y‖², ⟨C, M⟩ and ‖M‖² with M = Σ s_x s_yᵀ, a = Σ‖s_x‖².
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BYTES = 64 << 20  # of Gram matrices that are held at a time


@dataclass(frozen=True)
class Clusters:
    """Which sample each of some rows (R,) is of, numbered from 0: `owners`; and its place within the sample."""

    owners: Tensor
    places: Tensor
    sizes: Tensor

    @classmethod
    def from_keys(cls, keys: Tensor, clustered: bool = True) -> Clusters:
        """The samples of rows that go by their samples' keys; one a row unless `clustered`."""
        keys = keys if clustered else torch.arange(len(keys), device=keys.device)
        _, owners, sizes = keys.unique(return_inverse=True, return_counts=True)
        order = owners.argsort(stable=True)
        starts = sizes.cumsum(0) - sizes
        places = torch.empty_like(owners)
        places[order] = torch.arange(len(keys), device=keys.device) - starts[owners[order]]
        return cls(owners, places, sizes)

    @property
    def count(self) -> int:
        """The samples."""
        return len(self.sizes)

    @property
    def longest(self) -> int:
        """The most rows of a sample."""
        return int(self.sizes.max())

    def sums(self, rows: Tensor) -> Tensor:
        """Σ of the rows (R, …) of each sample, (samples, …)."""
        return rows.new_zeros(self.count, *rows.shape[1:]).index_add_(0, self.owners, rows)

    def padded(self, rows: Tensor) -> Tensor:
        """The rows (R, d) by sample and place, (samples, T, d), 0 where a sample has none."""
        result = rows.new_zeros(self.count, self.longest, rows.shape[1])
        result[self.owners, self.places] = rows
        return result

    def grams(self, rows: Tensor) -> Tensor:
        """The inner products of the rows of each sample, (samples, T, T)."""
        padded = self.padded(rows)
        return padded @ padded.mT


@dataclass(frozen=True)
class ClusterSums:
    """The sums above, matrices (L, L) over all pairs of layers, and the numbers of tuples of different samples."""

    same: Tensor  # W
    turned: Tensor  # R
    lengths: Tensor  # Q
    along: Tensor  # ⟨C, M⟩
    products: Tensor  # ‖M‖²
    weights: Tensor  # a, (L,)
    tuples: tuple[float, float, float]

    @classmethod
    def from_rows(cls, rows: Sequence[Tensor], clusters: Clusters, n: int, samples: int) -> ClusterSums:
        """The sums over `samples` samples of n rows, of which all or some, drawn at random, are given: (R, dᵢ) centred.

        Cost O(R Σ dᵢdⱼ), or O(L² R²/T + R² Σd/T) for T rows a sample where that is less.
        """
        m, longest = clusters.count, clusters.longest
        part = samples / m
        sums = [clusters.sums(x) for x in rows]
        turned = torch.stack([(x * s[clusters.owners]).sum(dim=1) for x, s in zip(rows, sums, strict=True)])
        lengths = torch.stack([s.square().sum(dim=1) for s in sums])
        count = len(rows)
        same, along, products = (turned.new_zeros(count, count) for _ in range(3))
        padded = [clusters.padded(x) for x in rows]
        for some in _blocks(m, count * longest**2):
            flat = torch.stack([(x[some] @ x[some].mT).flatten() for x in padded])
            same += flat @ flat.mT
        widths = sum(x.shape[1] for x in rows)
        if widths**2 <= m * (widths + count**2):
            for i, j in itertools.combinations_with_replacement(range(count), 2):
                product = sums[i].mT @ sums[j]
                along[i, j] = along[j, i] = ((rows[i].mT @ rows[j]) * product).sum()
                products[i, j] = products[j, i] = product.square().sum()
        else:
            for some in _blocks(m, count * len(clusters.owners)):
                flat = torch.stack([(x @ s[some].mT).flatten() for x, s in zip(rows, sums, strict=True)])
                along += flat @ flat.mT
                flat = torch.stack([(s @ s[some].mT).flatten() for s in sums])
                products += flat @ flat.mT
        r, q = turned @ turned.mT, lengths @ lengths.mT
        between = part * (samples - 1) / (m - 1) if m > 1 else 0.0  # pairs of different samples
        powers = [part * float((clusters.sizes.double() ** k).sum()) for k in (2, 3, 4)]
        return cls(
            part * same,
            part * r,
            part * q,
            part * r + between * (along - r),
            part * q + between * (products - q),
            part * lengths.sum(dim=1),
            _tuples(float(n), *powers),
        )

    def offsets(self) -> Tensor:
        """What ‖C‖² lacks of HSIC times the number of pairs of rows of different samples, (L, L)."""
        two, three, four = self.tuples
        triples = 2 * self.turned - self.along
        quadruples = torch.outer(self.weights, self.weights) - 6 * self.lengths + 2 * self.products
        return -self.same - 2 * two / three * triples + two / four * quadruples


def _tuples(n: float, two: float, three: float, four: float) -> tuple[float, float, float]:
    """The ordered pairs, triples and quadruples of rows of different samples, from Σ T, Σ T², Σ T³, Σ T⁴."""
    return (
        n**2 - two,
        n**3 - 3 * n * two + 2 * three,
        n**4 - 6 * n**2 * two + 8 * n * three + 3 * two**2 - 6 * four,
    )


def _blocks(count: int, each: int) -> Iterator[slice]:
    step = max(1, _BYTES // (8 * each))
    return (slice(start, start + step) for start in range(0, count, step))
