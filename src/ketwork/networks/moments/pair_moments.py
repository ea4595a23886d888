"""Streaming second moments of every pair of layers: all that compares two layers, in one pass.

`PairMoments` takes each batch's rows of all layers, one row a sample. It keeps the rows themselves while they
are the smaller side, and goes over to the cross moments XᵢᵀXⱼ (dᵢ × dⱼ) when these are smaller: nothing grows
with N². Where both exceed the memory budget, wide layers are projected (`sketch.Sketch`), and a second set of
moments at half the width is kept beside, from which the error of the projection is read.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.moments.projection import Sketch
from ketwork.records.checked import Count, Malformed, check, check_tensors
from ketwork.records.storage import under

MEMORY = 2 << 30
"""Bytes that the pairs of layers may take unless told otherwise."""

_ALWAYS = 16 << 20  # rows up to this size stay, however small the cross moments: they are exact
_NARROWEST = 16  # a projection below this many dimensions says nothing
_FLUSH = 1024  # rows that wait for one product: adding to the moments costs as much as multiplying 1,000 rows
_LONGEST_SUM = 4096  # rows summed in their own precision before the float64 sum takes over
_ITEM = 8  # bytes of a float64, in which the rows end and the moments are


class PairMoments:
    """What the rows of all layers so far say of every pair of them.

    Args:
        memory: bytes that may be taken.
        seed: draws the projection, should one be needed.

    `add` one batch after the other; `Comparison.of` reads them. With one mapping of layers
    every pair within it is kept, with two those between the first and the second. Attributes: `n` rows so
    far; `keys`, first the layers of the first mapping, then, from `split` on, of the second (`split` is
    None for one mapping); `incomplete` the layers that were missing in some batch, which count no more.

    >>> import torch
    >>> pairs = PairMoments()
    >>> for _ in range(3):
    ...     pairs.add({"a": torch.randn(10, 4), "b": torch.randn(10, 2)})
    >>> pairs
    PairMoments(2 layers, n=30, held as rows)
    """

    def __init__(self, *, memory: int = MEMORY, seed: int = 0) -> None:
        self.memory = memory
        self.seed = seed
        self.n = 0
        self.keys: list[Hashable] = []
        self.split: int | None = None
        self.incomplete: set[Hashable] = set()
        self.widths: list[int] = []
        self.sketches: dict[int, Sketch] = {}
        self.cross: CrossMoments | None = None
        self.half: PairMoments | None = None
        self._rows: list[list[Tensor]] = []
        self._waiting = 0

    def add(self, first: Mapping[Hashable, Tensor], second: Mapping[Hashable, Tensor] | None = None) -> None:
        """Adds a batch: rows (n, d) of each layer, the same samples in the same order.

        Layers are those of the first batch: one that is missing later is marked `incomplete`, a new one ignored.
        """
        given = {**first, **(second or {})}
        if not self.keys:
            if second is not None and (both := first.keys() & second.keys()):
                raise ValueError(
                    f"The two sides must have different keys, but share {sorted(map(str, both))}."
                )
            self.keys = list(given)
            self.split = None if second is None else len(first)
            self.widths = [rows.shape[1] for rows in given.values()]
            self._rows = [[] for _ in self.keys]
            self._affordable()
        counts = {len(rows) for rows in given.values()}
        if len(counts) != 1:
            raise ValueError(f"Layers must have one row a sample, but this batch has {sorted(counts)} rows.")
        n = counts.pop()
        like = next(iter(given.values()))
        parts = []
        for i, key in enumerate(self.keys):
            rows = given.get(key)
            if rows is None:
                self.incomplete.add(key)
                rows = like.new_zeros(n, self.widths[i])
            elif rows.shape[1] != self.widths[i]:
                raise ValueError(f"Layer {key!r} had {self.widths[i]} features and now has {rows.shape[1]}.")
            parts.append(rows)
        self._add(self._projected(parts))

    def __iadd__(self, other: PairMoments) -> PairMoments:
        """Adds the pairs of other samples, whose layers are found by their keys; one that is missing is `incomplete`.

        Exact but for rounding, also of projected layers, since the same seed and budget give the same projection.

        Raises:
            ValueError: the same layers were held in other widths, or projected otherwise.
        """
        if not other.keys:
            return self
        if not self.keys:
            self.__dict__.update(copy.deepcopy(other).__dict__)
            return self
        places = self._places(other)
        self.incomplete |= {key for key in other.incomplete if key in self.keys}
        self.incomplete |= {key for key, place in zip(self.keys, places, strict=True) if place is None}
        if other.sketches and not self.sketches:
            # What is held as rows is projected as the other's were, and enters its sums.
            self._project()
        if other.cross is None:
            parts = other._parts(places, self.widths if not other.sketches else self.dims)
            self._add(self._projected(parts) if self.sketches and not other.sketches else parts)
            return self
        other.flush()
        if self.cross is None:
            self.cross = CrossMoments(self.dims, self.split)
        self.flush()
        self._take(other, places)
        return self

    def _take(self, other: PairMoments, places: list[int | None]) -> None:
        """Adds the sums of another, which hold all that it has."""
        assert self.cross is not None
        assert other.cross is not None
        self.cross += other.cross.reordered(places, self.dims, self.split)
        self.n += other.n
        if self.half is not None and other.half is not None:
            self.half += other.half

    def _places(self, other: PairMoments) -> list[int | None]:
        """Where the other has each of these layers."""
        known = {key: i for i, key in enumerate(other.keys)}
        places = [known.get(key) for key in self.keys]
        for key, width, place in zip(self.keys, self.widths, places, strict=True):
            if place is not None and other.widths[place] != width:
                raise ValueError(
                    f"Layer {key!r} has {width} features in one part and {other.widths[place]} in another."
                )
        if (self.split is None) != (other.split is None):
            raise ValueError("One part compares two models, another one with itself.")
        if (self.sketches or other.sketches) and (self.seed, self.memory) != (other.seed, other.memory):
            raise ValueError(
                f"Projected layers can only be added where seed and memory are the same, but they are {self.seed} and "
                f"{self.memory} bytes in one part and {other.seed} and {other.memory} bytes in another."
            )
        return places

    def _parts(self, places: list[int | None], widths: list[int]) -> list[Tensor]:
        """The kept rows by place, 0 where there is none."""
        like = self._rows[0][0]
        return [
            like.new_zeros(self.n, width) if place is None else self.rows(place)
            for place, width in zip(places, widths, strict=True)
        ]

    def rows(self, i: int) -> Tensor:
        """The kept rows of the i-th layer, (n, d), where `cross` is None."""
        return torch.cat(self._rows[i])

    def flush(self) -> None:
        """Brings waiting rows into the moments."""
        if self.cross is not None and self._waiting:
            self.cross.add([torch.cat(chunks) for chunks in self._rows])
            self._rows, self._waiting = [[] for _ in self.keys], 0

    def header(self) -> dict[str, Any]:
        """The plain values of a file but the keys, which are named by their places; `tensors` has the rest."""
        return {
            "memory": self.memory,
            "seed": self.seed,
            "n": self.n,
            "split": self.split,
            "incomplete": [i for i, key in enumerate(self.keys) if key in self.incomplete],
            "widths": self.widths,
            "sketches": {str(i): sketch.k for i, sketch in self.sketches.items()},
            "summed": None if self.cross is None else self.cross.n,
            "half": None if self.half is None else self.half.header(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        found = {f"rows.{i}": self.rows(i) for i in range(len(self.keys))} if self._waiting else {}
        if self.cross is not None:
            found |= {f"cross.{name}": tensor for name, tensor in self.cross.tensors().items()}
        if self.half is not None:
            found |= {f"half.{name}": tensor for name, tensor in self.half.tensors().items()}
        return found

    @classmethod
    def from_header(
        cls, header: dict[str, Any], tensors: dict[str, Tensor], keys: Sequence[Hashable]
    ) -> PairMoments:
        """The pairs of the layers `keys` that `header` and `tensors` described."""
        check(header, _HEADER, "pairs")
        if (header["half"] is None) != (not header["sketches"]):
            raise Malformed("pairs must have both projections and moments at half their width, or neither")
        found = cls(memory=header["memory"], seed=header["seed"])
        found.n, found.split, found.widths = header["n"], header["split"], list(header["widths"])
        found.keys, places = list(keys), range(len(keys))
        sketches = header["sketches"]
        if len(found.widths) != len(keys) or not (
            {*header["incomplete"]} <= {*places} and {*sketches} <= {*map(str, places)}
        ):
            raise Malformed(f"pairs of {len(keys)} layers cannot have these widths and places")
        found.incomplete = {keys[i] for i in header["incomplete"]}
        if not all(0 < k < found.widths[int(i)] for i, k in sketches.items()):
            raise Malformed("layers cannot be projected to no or to more features than they have")
        rows = under("rows.", tensors)
        sizes = {f"d{i}": int(sketches.get(str(i), d)) for i, d in enumerate(found.widths)}
        summed = header["summed"]
        waiting = check_tensors(rows, sizes, **{f"{i}": f"real n d{i}?" for i in places}).get("n", 0)
        if waiting + (summed or 0) != found.n or len(rows) != (len(keys) if waiting else 0):
            raise Malformed(f"pairs of {found.n} rows must hold them, or their moments")
        for i, k in sketches.items():
            found.sketches[int(i)] = Sketch.draw(found.widths[int(i)], k, found.seed)
        found._rows, found._waiting = [[rows[f"{i}"]] if waiting else [] for i in places], waiting
        if summed is not None:
            found.cross = CrossMoments(found.dims, found.split)
            found.cross.restore(summed, under("cross.", tensors))
        if header["half"] is not None:
            found.half = cls.from_header(header["half"], under("half.", tensors), keys)
            folded = [k // 2 if i in found.sketches else k for i, k in enumerate(found.dims)]
            if found.half.widths != folded:
                raise Malformed(f"half of {found.dims} features cannot be {found.half.widths}")
        return found

    @property
    def dims(self) -> list[int]:
        """The width each layer is held in: its features, or fewer where it is projected."""
        return [self.sketches[i].k if i in self.sketches else d for i, d in enumerate(self.widths)]

    @property
    def form(self) -> str:
        """How the pairs are held: `rows` or `moments`."""
        return "rows" if self.cross is None else "moments"

    def __repr__(self) -> str:
        projected = f", {len(self.sketches)} of them projected" if self.sketches else ""
        return f"PairMoments({len(self.keys)} layers{projected}, n={self.n}, held as {self.form})"

    def _add(self, parts: list[Tensor]) -> None:
        if self.half is not None:
            self.half._add(self._folded(parts))
        for chunks, rows in zip(self._rows, parts, strict=True):
            chunks.append(rows)
        self.n += len(parts[0])
        self._waiting += len(parts[0])
        if self.cross is not None:
            if self._waiting >= _FLUSH:
                self.flush()
            return
        moments = _moment_bytes(self.dims, self.split)
        if self._row_bytes() <= min(self.memory, max(moments, _ALWAYS)):
            return
        if moments > self.memory and not self.sketches:
            self._project()
        if self._row_bytes() > min(self.memory, max(_moment_bytes(self.dims, self.split), _ALWAYS)):
            self.cross = CrossMoments(self.dims, self.split)
            self.flush()

    def _row_bytes(self) -> int:
        return _ITEM * self.n * sum(self.dims) * (3 if self.sketches else 2) // 2

    def _project(self) -> None:
        """Projects the layers wider than the budget allows, and begins the moments at half the width."""
        low, high = _NARROWEST, max(self.widths)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if _bytes_at(middle, self.widths, self.split) <= self.memory else (low, middle)
            )
        k = low - low % 2
        self.sketches = {i: Sketch.draw(d, k, self.seed) for i, d in enumerate(self.widths) if d > k}
        held = self._projected([torch.cat(chunks) for chunks in self._rows])
        self._rows = [[rows] for rows in held]
        self.half = PairMoments(memory=self.memory, seed=self.seed)
        self.half.keys, self.half.split = self.keys, self.split
        folded = self._folded(held)
        self.half.widths = [rows.shape[1] for rows in folded]
        self.half._rows = [[] for _ in self.keys]
        self.half._add(folded)

    def _affordable(self) -> None:
        least = least_bytes(self.widths, self.split)
        if least > self.memory:
            raise ValueError(
                f"Argument `memory` must be at least {least} bytes for {len(self.keys)} layers, but is "
                f"{self.memory}. Give more, or choose fewer layers."
            )

    def _projected(self, parts: list[Tensor]) -> list[Tensor]:
        return [self.sketches[i](rows) if i in self.sketches else rows for i, rows in enumerate(parts)]

    def _folded(self, parts: list[Tensor]) -> list[Tensor]:
        """Projected rows at half their width: pairs of buckets become one."""
        return [
            rows[:, : rows.shape[1] // 2] + rows[:, rows.shape[1] // 2 :] if i in self.sketches else rows
            for i, rows in enumerate(parts)
        ]


@dataclass
class CrossMoments:
    """Sums over rows x (of one layer) and y (of another), each less its layer's `origin`.

    own[i] = Σ x xᵀ of layer i; right[i] = Σ x yᵀ against the layers that it is paired with and that come later
    (all of them, or those of the other side), side by side; sums (D,) = Σ x of all layers side by side;
    lengths (L,) = Σ‖x‖², lengths_of_pairs (L, L) = Σ‖x‖²‖y‖²; weighted (L, D) = Σ ‖x‖² y. The origin, the mean
    of the first rows, keeps a large common part from eating the digits of the float32 products.
    """

    dims: list[int]
    split: int | None

    def __post_init__(self) -> None:
        self.starts = [sum(self.dims[:i]) for i in range(len(self.dims) + 1)]
        self.n = 0
        self.origin: list[Tensor] = []

    def add(self, parts: list[Tensor]) -> None:
        """Adds rows (n, dᵢ) of each layer. Cost O(n Σ dᵢ dⱼ) over the pairs."""
        if not self.origin:
            self._begin(parts)
        x = torch.cat(
            [rows - origin.to(rows) for rows, origin in zip(parts, self.origin, strict=True)], dim=1
        )
        for chunk in x.split(_LONGEST_SUM):
            pieces = [chunk[:, self._columns(i)] for i in range(len(self.dims))]
            lengths = torch.stack([piece.double().square().sum(dim=1) for piece in pieces], dim=1)
            self.sums += chunk.sum(dim=0, dtype=torch.float64)
            self.lengths += lengths.sum(dim=0)
            self.lengths_of_pairs += lengths.mT @ lengths
            self.weighted += lengths.to(chunk).mT @ chunk
            for i, piece in enumerate(pieces):
                self.own[i] += piece.mT @ piece
                self.right[i] += piece.mT @ chunk[:, self._partners(i)]
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
        found = CrossMoments(dims, split)
        found._begin([self.sums.new_zeros(1, d) for d in dims])
        found.n = self.n
        for i, a in enumerate(places):
            if a is None:
                continue
            found.origin[i] = self.origin[a]
            found.sums[found._columns(i)] = self.sums[self._columns(a)]
            found.lengths[i] = self.lengths[a]
            for j, b in enumerate(places):
                if b is None:
                    continue
                found.lengths_of_pairs[i, j] = self.lengths_of_pairs[a, b]
                found.weighted[i, found._columns(j)] = self.weighted[a, self._columns(b)]
                if j == i or j in found._later(i):
                    found.raw(i, j).copy_(self.raw(a, b) if a <= b else self.raw(b, a).mT)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        found = {name: getattr(self, name) for name in _SUMS}
        for name in _LISTS:
            found |= {f"{name}.{i}": tensor for i, tensor in enumerate(getattr(self, name))}
        return found

    def restore(self, n: int, tensors: dict[str, Tensor]) -> None:
        """Takes over the sums over n rows that `tensors` described."""
        count, total = len(self.dims), self.starts[-1]
        sizes = {"l": count, "w": total} | {f"d{i}": d for i, d in enumerate(self.dims)}
        sizes |= {f"p{i}": len(range(total)[self._partners(i)]) for i in range(count)}
        forms = dict(_SUMS)
        for name, form in _LISTS.items():
            forms |= {f"{name}.{i}": form.replace("#", str(i)) for i in range(count)}
        check_tensors(tensors, sizes, **forms)
        for name in _SUMS:
            setattr(self, name, tensors[name])
        for name in _LISTS:
            setattr(self, name, [tensors[f"{name}.{i}"] for i in range(count)])
        self.n = n

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
        self.origin = [rows.mean(dim=0, dtype=torch.float64) for rows in parts]
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


def least_bytes(widths: list[int], split: int | None = None) -> int:
    """The bytes that pairs of layers of these widths take when projected to as few dimensions as they may be."""
    return _bytes_at(_NARROWEST, widths, split)


def _bytes_at(k: int, widths: list[int], split: int | None) -> int:
    whole, half = ([min(d, k // by) if d > k else d for d in widths] for by in (1, 2))
    return _moment_bytes(whole, split) + _moment_bytes(half, split)


_HEADER = {
    "memory": Count,
    "seed": int,
    "n": Count,
    "split": (Count, None),
    "incomplete": [Count],
    "widths": [Count],
    "sketches": {str: Count},
    "summed": (Count, None),
    "half": (dict, None),
}
_SUMS = {
    "sums": "real w",
    "lengths": "real l",
    "lengths_of_pairs": "real l l",
    "weighted": "real l w",
}
_LISTS = {"origin": "real d#", "own": "real d# d#", "right": "real d# p#"}


def _moment_bytes(dims: list[int], split: int | None) -> int:
    own = sum(d * d for d in dims)
    within = (sum(dims) ** 2 - own) // 2
    pairs = within if split is None else sum(dims[:split]) * sum(dims[split:])
    return _ITEM * (own + pairs + len(dims) * sum(dims))
