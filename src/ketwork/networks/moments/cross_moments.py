"""Cross moments of every pair of layers: what compares two layers, in sums that do not grow with the data."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ketwork.networks.moments.grams import mirrored
from ketwork.records import Count, Form, Malformed

_LONGEST_SUM = 4096  # rows summed in their own precision before the float64 sum takes over
_BLOCKED_FROM = 256  # from this width on only the upper block triangle of a layer's own products is computed
_BLOCKS = 4


def _nothing() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)


@dataclass
class CrossMoments:
    """Sums over rows x (of one layer) and y (of another), each less its layer's `origin`.

    own[i] = Σ x xᵀ of layer i, from products in float64 (an axis 1,000 times smaller than another has 10⁻⁶ of that
    one's weight, near what float32 rounds off); right[i] = Σ x yᵀ against the layers that it is paired with and that
    come later (all of them, or those of the other side), side by side; sums (D,) = Σ x of all layers side by side;
    lengths (L,) = Σ‖x‖², lengths_of_pairs (L, L) = Σ‖x‖²‖y‖²; weighted (L, D) = Σ ‖x‖² y. The origin, the mean
    of the first rows, keeps a large common part from eating the digits of the float32 products.
    """

    dims: list[Count]
    split: Count | None
    n: Count = 0
    origin: list[Tensor] = field(default_factory=list)
    own: list[Tensor] = field(default_factory=list)
    right: list[Tensor] = field(default_factory=list)
    sums: Annotated[Tensor, Form("real w")] = field(default_factory=_nothing)
    lengths: Annotated[Tensor, Form("real l")] = field(default_factory=_nothing)
    lengths_of_pairs: Annotated[Tensor, Form("real l l")] = field(default_factory=_nothing)
    weighted: Annotated[Tensor, Form("real l w")] = field(default_factory=_nothing)

    @property
    def starts(self) -> list[int]:
        """Where each layer's columns begin, and the end of the last one's."""
        return [sum(self.dims[:i]) for i in range(len(self.dims) + 1)]

    @property
    def sizes(self) -> dict[str, int]:
        """The layers, and all their columns."""
        return {"l": len(self.dims), "w": sum(self.dims)}

    def check(self) -> None:
        """Each layer has an origin, its own products and those with its partners."""
        columns = [len(range(sum(self.dims))[self._partners(i)]) for i in range(len(self.dims))]
        wanted: dict[str, list[tuple[int, ...]]] = {
            "origin": [(d,) for d in self.dims],
            "own": [(d, d) for d in self.dims],
            "right": list(zip(self.dims, columns, strict=True)),
        }
        if self.split is not None and self.split > len(self.dims):
            raise Malformed(f"the second of {len(self.dims)} layers cannot begin at {self.split}")
        for name, shapes in wanted.items():
            tensors = getattr(self, name)
            fits = [tuple(tensor.shape) for tensor in tensors] == shapes
            if not fits or not all(t.dtype == torch.float64 and bool(t.isfinite().all()) for t in tensors):
                raise Malformed(f"`{name}` must hold finite float64 tensors of shapes {shapes[:4]}")

    def add(self, parts: list[Tensor]) -> None:
        """Adds rows (n, dᵢ) of each layer. Cost O(n Σ dᵢ dⱼ) over the pairs."""
        if not self.origin:
            self._begin(parts)
        x = torch.cat(
            [rows - origin.to(rows) for rows, origin in zip(parts, self.origin, strict=True)], dim=1
        )
        for chunk in x.split(_LONGEST_SUM):
            pieces = [chunk[:, self._columns(i)] for i in range(len(self.dims))]
            wide = chunk.double()
            lengths = torch.stack([piece.double().square().sum(dim=1) for piece in pieces], dim=1)
            self.sums += chunk.sum(dim=0, dtype=torch.float64)
            self.lengths += lengths.sum(dim=0)
            self.lengths_of_pairs += lengths.mT @ lengths
            self.weighted += lengths.to(chunk).mT @ chunk
            for i, piece in enumerate(pieces):
                self.own[i] += _square(piece)
                self.right[i] += piece.double().mT @ wide[:, self._partners(i)]
        self.n += len(x)

    def __iadd__(self, other: CrossMoments) -> CrossMoments:
        """Adds sums about other origins: with y = u + δ, u about its own, all follow from what it holds."""
        if not self.origin:
            self.__dict__.update(copy.deepcopy(other).__dict__)
            return self
        n, count = other.n, len(self.dims)
        deltas = [theirs - mine for theirs, mine in zip(other.origin, self.origin, strict=True)]
        totals = [other.sums[self._columns(i)] for i in range(count)]
        squares = [float(delta @ delta) for delta in deltas]
        along = [float(delta @ total) for delta, total in zip(deltas, totals, strict=True)]  # δ · Σu
        for i in range(count):
            for j in (i, *self._later(i)):
                raw, left, right = other.raw(i, j), deltas[i], deltas[j]
                both = float(left @ raw @ right)
                moved = raw + torch.outer(left, totals[j]) + torch.outer(totals[i], right)
                self.raw(i, j).add_(moved + n * torch.outer(left, right))
                for a, b, product in [(i, j, raw), (j, i, raw.mT)][: 1 + (i != j)]:
                    # Σ‖u_a + δ_a‖² (u_b + δ_b), with `product` Σ u_a u_bᵀ
                    self.weighted[a, self._columns(b)] += (
                        other.of_lengths(a, b)
                        + 2 * product.mT @ deltas[a]
                        + squares[a] * totals[b]
                        + (float(other.lengths[a]) + 2 * along[a] + n * squares[a]) * deltas[b]
                    )
                total = (
                    float(other.lengths_of_pairs[i, j])
                    + 2 * float(right @ other.of_lengths(i, j) + left @ other.of_lengths(j, i))
                    + squares[j] * float(other.lengths[i])
                    + squares[i] * float(other.lengths[j])
                    + 4 * both
                    + 2 * (squares[j] * along[i] + squares[i] * along[j])
                    + n * squares[i] * squares[j]
                )
                self.lengths_of_pairs[i, j] += total
                if i != j:
                    self.lengths_of_pairs[j, i] += total
        for i, delta in enumerate(deltas):
            self.lengths[i] += other.lengths[i] + 2 * along[i] + n * squares[i]
            self.sums[self._columns(i)] += totals[i] + n * delta
        self.n += n
        return self

    def reordered(self, places: list[int | None], dims: list[int], split: int | None) -> CrossMoments:
        """The same sums for layers in another order, 0 for those that are not here."""
        if places == list(range(len(self.dims))):
            return self
        result = CrossMoments(dims, split)
        result._begin([self.sums.new_zeros(1, d) for d in dims])
        result.n = self.n
        for i, a in enumerate(places):
            if a is None:
                continue
            result.origin[i] = self.origin[a]
            result.sums[result._columns(i)] = self.sums[self._columns(a)]
            result.lengths[i] = self.lengths[a]
            for j, b in enumerate(places):
                if b is None:
                    continue
                result.lengths_of_pairs[i, j] = self.lengths_of_pairs[a, b]
                result.weighted[i, result._columns(j)] = self.weighted[a, self._columns(b)]
                if j == i or j in result._later(i):
                    result.raw(i, j).copy_(self.raw(a, b) if a <= b else self.raw(b, a).mT)
        return result

    def raw(self, i: int, j: int) -> Tensor:
        """Σ x yᵀ of layers i ≤ j, (dᵢ, dⱼ)."""
        if i == j:
            return self.own[i]
        start = self._partners(i).start
        return self.right[i][:, self.starts[j] - start : self.starts[j + 1] - start]

    def mean(self, i: int) -> Tensor:
        """The mean row of layer i less its origin, (dᵢ,)."""
        return self.sums[self._columns(i)] / self.n

    def of_lengths(self, i: int, j: int) -> Tensor:
        """Σ ‖x‖² y with the lengths of layer i and the rows of layer j, (dⱼ,)."""
        return self.weighted[i, self._columns(j)]

    def _begin(self, parts: list[Tensor]) -> None:
        device, count, total = parts[0].device, len(self.dims), self.starts[-1]
        zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64, device=device)  # noqa: E731
        # Of the rows' own precision, in which it is taken off, so that parts about other origins add up.
        self.origin = [rows.mean(dim=0, dtype=torch.float64).to(rows).double() for rows in parts]
        self.own = [zeros(d, d) for d in self.dims]
        self.right = [
            zeros(d, max(self._partners(i).stop - self._partners(i).start, 0))
            for i, d in enumerate(self.dims)
        ]
        self.sums, self.lengths = zeros(total), zeros(count)
        self.lengths_of_pairs, self.weighted = zeros(count, count), zeros(count, total)

    def _columns(self, i: int) -> slice:
        return slice(self.starts[i], self.starts[i + 1])

    def _later(self, i: int) -> range:
        """The later layers that the i-th is paired with."""
        first = i + 1 if self.split is None else (self.split if i < self.split else len(self.dims))
        return range(first, len(self.dims))

    def _partners(self, i: int) -> slice:
        return slice(self.starts[self._later(i).start], self.starts[-1])


def _square(rows: Tensor) -> Tensor:
    """Σ x xᵀ of the rows (n, d) by products in float64, of which only the upper block triangle is computed."""
    wide, d = rows.double(), rows.shape[1]
    step = d if d < _BLOCKED_FROM else -(-d // _BLOCKS)
    upper = wide.new_zeros(d, d)
    for start in range(0, d, step):
        block = slice(start, min(start + step, d))
        upper[block, start:] = wide[:, block].mT @ wide[:, start:]
    return mirrored(upper)
