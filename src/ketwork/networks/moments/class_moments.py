"""Second moments by class, in memory that neither the number of kets nor that of classes can outgrow.

The kets themselves say everything while they are fewer than the matrices would be; then there is one d × d
matrix a class; where those would not fit (`MOST_BYTES`), each class keeps the leading rows of its factor,
and one matrix holds the exact sum over all classes. What a class lost is then known in its weight, and what
all lost together is known exactly; the readouts give each class its weight's share of that.

Where that one matrix does not fit the memory budget either (or, without one, of more than 16,384 features), the rows of
each class are a Frequent Directions sketch (see `frequent_directions`): what class k lost has the known weight `lost`
and lies between 0 and `slack` · 1, and the readouts spread it evenly over all directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.moments.frequent_directions import FrequentDirections
from ketwork.networks.moments.grams import add_gram, gram, mirrored
from ketwork.records import Count, Form, check_codes

MOST_BYTES = 64 << 20
"""Most memory of a layer's class matrices or factors."""

_MOST_SUM = 16 * 16_384**2
"""Most memory of the exact sum over a layer's classes, without a budget: up to 16,384 features."""

_MOST_RANK = 256


@dataclass(frozen=True)
class ClassMoments:
    """n_k, Σ x and Σ x xᵀ over the real unit kets x of each class k, for codes 0 … K − 1.

    `counts` (K,), `sums` (K, d); the second moments are `rows` (R, d) with `owners` (R,), Σ row rowᵀ over the
    rows of a class, or `dense` (K, d, d). Where rows were truncated, `lost` (K,) is the weight that each
    class lost and `total` (d, d) the exact sum over all classes.
    """

    counts: Annotated[Tensor, Form("real k")]
    sums: Annotated[Tensor, Form("real k d")]
    rows: Annotated[Tensor, Form("real r d")]
    owners: Annotated[Tensor, Form("int r")]
    dense: Annotated[Tensor, Form("real k d d")] | None
    lost: Annotated[Tensor, Form("real k")]
    total: Annotated[Tensor, Form("real d d")] | None
    slack: Annotated[Tensor, Form("real k")]
    most: Count | None = None

    def check(self) -> None:
        """Every row belongs to one of the classes."""
        check_codes(self.owners, len(self.counts))

    @classmethod
    def from_vectors(cls, kets: Tensor, codes: Tensor, classes: int, most: int | None = None) -> ClassMoments:
        """The moments of kets (n, d) of the classes `codes` (n,). Cost O(n d) at first, O(n d²) beyond.

        `most` is a budget in bytes; None allows `MOST_BYTES` and, up to 16,384 features, the sum over all classes.
        """
        counts = torch.bincount(codes, minlength=classes) if len(codes) else codes.new_zeros(classes)
        counts = counts.double()
        sums = kets.new_zeros(len(counts), kets.shape[1], dtype=torch.float64)
        for part in range(0, len(kets), _CHUNK):
            sums.index_add_(0, codes[part : part + _CHUNK], kets[part : part + _CHUNK].double())
        nothing = torch.zeros_like(counts)
        return cls(counts, sums, kets, codes, None, nothing, None, nothing, most)._bounded()

    @property
    def d(self) -> int:
        """The number of features."""
        return self.sums.shape[1]

    @property
    def present(self) -> Tensor:
        """Which classes have kets, (K,)."""
        return self.counts > 0

    @property
    def means(self) -> Tensor:
        """The mean ket of each class (K, d), 0 where there is none."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    @property
    def discarded(self) -> float:
        """The share of the kets' weight that no class keeps as its own."""
        return float(self.lost.sum() / self.counts.sum().clamp(min=1))

    def __add__(self, other: ClassMoments) -> ClassMoments:
        k = max(len(self.counts), len(other.counts))
        a, b = self._of(k), other._of(k)
        sketched = a.sketched or b.sketched
        total = dense = None
        if not sketched and (a.total is not None or b.total is not None):
            total = a._sum() + b._sum()
        elif not sketched and (a.dense is not None or b.dense is not None):
            dense = a._matrices() + b._matrices()
        if dense is None:
            a, b = a._factors(), b._factors()
        slack = a.slack + b.slack
        for part in (a, b) if sketched else ():
            if part.total is not None:
                slack = slack + part.lost  # of what was cut off beside an exact sum only the weight is known
        return ClassMoments(
            a.counts + b.counts,
            a.sums + b.sums,
            torch.cat([a.rows, b.rows]) if dense is None else a.rows[:0],
            torch.cat([a.owners, b.owners]) if dense is None else a.owners[:0],
            dense,
            a.lost + b.lost,
            total,
            slack,
            min(filter(None, (a.most, b.most)), default=None),
        )._bounded()

    def recoded(self, codes: Tensor) -> ClassMoments:
        """The same with codes[k] for the code k, all of them different."""
        codes = codes[: len(self.counts)].to(self.owners)
        k = 1 + int(codes.max()) if len(codes) else 0

        def moved(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(k, *tensor.shape[1:]).index_copy_(0, codes, tensor)

        return replace(
            self,
            counts=moved(self.counts),
            sums=moved(self.sums),
            owners=codes[self.owners],
            lost=moved(self.lost),
            slack=moved(self.slack),
            dense=None if self.dense is None else moved(self.dense),
        )

    def summed(self) -> Tensor:
        """Σ x xᵀ over all classes, (d, d), in float64; what a sketch lost of it is spread evenly."""
        total = self._sum().double()
        if self.sketched:
            total = total + torch.eye(self.d).to(total) * (float(self.lost.sum()) / self.d)
        return total

    def along_means(self) -> Tensor:
        """μ_kᵀ (Σ x xᵀ over class k) μ_k of each class with mean μ_k, (K,), in float64. Cost O(R d) or O(K d²)."""
        means = self.means
        if self.dense is not None:
            return torch.einsum("kd,kde,ke->k", means, self.dense, means)
        result = means.new_zeros(len(means))
        for rows, owners in self._chunks():
            result.index_add_(0, owners, (rows.double() * means[owners]).sum(dim=1).square())
        if self.total is not None:
            return result + ((means @ self.rest) * means).sum(dim=1) * self.lost
        return result + means.square().sum(dim=1) * self.lost / self.d

    def mapped(self, basis: Tensor) -> ClassMoments:
        """The moments of the kets' coordinates in the columns of `basis` (d, q), which are real numbers."""
        few = len(self.rows) <= basis.shape[1]  # which a copy in float64 hardly adds to
        rows = self.rows.double() @ basis if few else self.rows @ basis.to(self.rows)
        total = None
        if self.total is not None:
            total = basis.T @ self.total @ basis
        elif self.sketched:
            total = gram(rows) + float(self.lost.sum()) / self.d * torch.eye(basis.shape[1]).to(basis)
        return replace(
            self,
            sums=self.sums @ basis,
            rows=rows,
            dense=None if self.dense is None else basis.T @ self.dense @ basis,
            total=total,
        )

    @property
    def sketched(self) -> bool:
        """Whether classes lost something of which the sum is not known either."""
        return self.total is None and self.discarded > 0

    def spread(self, vectors: Tensor) -> Tensor:
        """C v of the vectors (d, q), with C the covariance of `balanced`, which is not formed where rows are kept."""
        if self.dense is not None or self.total is not None:
            return self._covariance.to(vectors) @ vectors
        mean, weights = self.means[self.present].mean(dim=0), self._weights()
        result = -torch.outer(mean, mean @ vectors.to(mean)).to(vectors)
        for rows, owners in self._chunks():
            shares = (rows.to(vectors) @ vectors) * weights[owners, None].to(vectors)
            result += rows.to(vectors).T @ shares
        return result + vectors * (float(weights @ self.lost) / self.d)

    def balanced(self) -> tuple[Tensor, Tensor]:
        """The mean m (d,) of the present classes' means, and the mean of their E (x−m)(x−m)ᵀ, (d, d)."""
        mean = self.means[self.present].mean(dim=0)
        weights = self._weights()
        if self.dense is not None:
            c = torch.tensordot(weights, self.dense, dims=1)
        else:
            c = mean.new_zeros(self.d, self.d)
            for rows, owners in self._chunks():
                add_gram(c, rows * weights[owners, None].sqrt().to(rows))
            c = mirrored(c)
        if self.total is not None:
            c = c + float(weights @ self.lost) * self.rest
        return mean, c - torch.outer(mean, mean)

    def read(self, vectors: Tensor) -> Tensor:
        """vᵀ (E_k x xᵀ) v for each of the vectors (n, d) and each class, (n, K). Cost O(n R d) or O(n K d²)."""
        result = vectors.new_zeros(len(vectors), len(self.counts))
        if self.dense is not None:
            for code in self.present.nonzero()[:, 0].tolist():
                result[:, code] = ((vectors @ self.dense[code]) * vectors).sum(dim=1)
        else:
            for rows, owners in self._chunks():
                result.index_add_(1, owners, (vectors @ rows.to(vectors).T).square())
        if self.total is not None:
            result += ((vectors @ self.rest) * vectors).sum(dim=1, keepdim=True) * self.lost
        return result / self.counts.clamp(min=1)

    def own(self, code: int) -> tuple[Tensor | None, Tensor | None]:
        """What a class keeps of Σ x xᵀ: its factor (r, d) or its matrix (d, d), in float64."""
        if self.dense is not None:
            return None, self.dense[code]
        return self.rows[self.owners == code].double(), None

    @cached_property
    def _covariance(self) -> Tensor:
        return self.balanced()[1]

    @cached_property
    def rest(self) -> Tensor:
        """What all classes lost together, (d, d), as a state: of trace 1 (0 where nothing is lost)."""
        assert self.total is not None
        left = self.total - gram(self.rows)
        return left / self.lost.sum() if self.discarded > 0 else torch.zeros_like(left)

    def _weights(self) -> Tensor:
        """What a ket of each class weighs where all present classes weigh the same, (K,)."""
        return self.present / self.counts.clamp(min=1) / self.present.sum()

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.rows.split(_CHUNK), self.owners.split(_CHUNK), strict=True)

    def _of(self, k: int) -> ClassMoments:
        """The same for k classes, the new ones empty."""
        more = k - len(self.counts)
        if more == 0:
            return self

        def padded(tensor: Tensor) -> Tensor:
            return torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])

        return replace(
            self,
            counts=padded(self.counts),
            sums=padded(self.sums),
            lost=padded(self.lost),
            slack=padded(self.slack),
            dense=None if self.dense is None else padded(self.dense),
        )

    def _bounded(self) -> ClassMoments:
        """The same, held in the form that its size asks for."""
        k, d = self.sums.shape
        matrices = k * d * d * 8
        most = MOST_BYTES if self.most is None else self.most
        if self.total is None and self.dense is None:
            if self.rows.nbytes <= min(matrices, most):
                return self
            if matrices <= most and not self.discarded:
                return replace(self, dense=self._matrices(), rows=self.rows[:0], owners=self.owners[:0])
        if self.total is None and self.dense is not None and matrices <= most:
            return self
        result = self
        limit = _MOST_SUM if self.most is None else most
        if self.total is None and d * d * 16 <= limit and not self.discarded:
            result = replace(self._factors(), total=self._sum())
        return result._truncated(max(1, min(_MOST_RANK, most // (2 * k * d * self.rows.element_size()))))

    def _truncated(self, rank: int) -> ClassMoments:
        """Classes of more than 2 · rank rows keep that many of the leading directions of their factor."""
        sizes = torch.bincount(self.owners, minlength=len(self.counts))
        if int(sizes.max()) <= 2 * rank:
            return self
        stay = sizes[self.owners] <= 2 * rank
        rows, owners = [self.rows[stay]], [self.owners[stay]]
        lost, slack = self.lost.clone(), self.slack.clone()
        for code in (sizes > 2 * rank).nonzero()[:, 0].tolist():
            own = self.rows[self.owners == code]
            # Beside the exact sum over all classes nothing is gained by shrinking what is kept.
            kept, cut, less = _leading(own, rank, shrink=self.total is None)
            rows.append(kept)
            owners.append(self.owners.new_full((len(kept),), code))
            lost[code] += less
            slack[code] += cut
        return replace(
            self, rows=torch.cat(rows), owners=torch.cat(owners), lost=lost.clamp(min=0), slack=slack
        )

    def _matrices(self) -> Tensor:
        if self.dense is not None:
            return self.dense
        result = self.sums.new_zeros(len(self.counts), self.d, self.d)
        for code in self.owners.unique().tolist():
            result[code] = gram(self.rows[self.owners == code])
        return result

    def _factors(self) -> ClassMoments:
        """Rows in place of matrices."""
        if self.dense is None:
            return self
        rows, owners = [self.rows], [self.owners]
        for code in self.present.nonzero()[:, 0].tolist():
            values, vectors = torch.linalg.eigh(self.dense[code])
            rows.append((vectors[:, values > 0] * values[values > 0].sqrt()).T.to(self.rows))
            owners.append(self.owners.new_full((len(rows[-1]),), code))
        return replace(self, dense=None, rows=torch.cat(rows), owners=torch.cat(owners))

    def _sum(self) -> Tensor:
        """Σ x xᵀ over all classes, (d, d)."""
        if self.total is not None:
            return self.total
        if self.dense is not None:
            return self.dense.sum(dim=0)
        return gram(self.rows)


_CHUNK = 1024  # rows multiplied at once, in their own precision


def _leading(rows: Tensor, rank: int, shrink: bool) -> tuple[Tensor, float, float]:
    """Orthogonal rows along the leading directions of rowsᵀ rows, what their squares shrank by, and the weight lost.

    A sketch takes its rows in as many as it can hold: that bounds the work on a long run of them.
    """
    sketch = FrequentDirections.empty(rows.shape[1], rank=rank, like=rows[:0].double())
    if shrink:
        sketch.add(rows)
        if len(sketch.rows) > rank:
            sketch.shrink()
        return sketch.rows.to(rows), sketch.slack, sketch.lost
    full = rows.double()
    if len(full) > full.shape[1]:
        values, vectors = torch.linalg.eigh(full.T @ full)
        kept = (vectors * values.clamp(min=0).sqrt()).T[-rank:]
    else:
        kept = torch.linalg.eigh(full @ full.T).eigenvectors[:, -rank:].T @ full
    kept = kept.to(rows)
    return kept, 0.0, float(full.square().sum() - kept.double().square().sum())
