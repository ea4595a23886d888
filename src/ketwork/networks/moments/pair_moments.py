"""Streaming second moments of every pair of layers: all that compares two layers, in one pass.

`PairMoments` takes each batch's rows of all layers, one row a sample. It keeps the rows themselves while they
are the smaller side, and goes over to the cross moments XᵢᵀXⱼ (dᵢ × dⱼ) when these are smaller: nothing grows
with N². Where both exceed the memory budget, wide layers are projected (`projection.Projection`), and a second set of
moments at half the width is kept beside, from which the error of the projection is read. Beside the moments a few whole
samples stay as they are (`kept_samples`), which show how much samples differ.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.moments import pair_budget as budget
from ketwork.networks.moments.cross_moments import CrossMoments
from ketwork.networks.moments.kept_samples import KeptSamples, usable
from ketwork.networks.moments.key_draws import sample_keys
from ketwork.networks.moments.plain_keys import key_from, plain
from ketwork.networks.moments.projection import Projection
from ketwork.records import Count, Malformed

MEMORY = 2 << 30
"""Bytes that the pairs of layers may take by default."""

ALWAYS = 16 << 20
"""Bytes up to which rows stay, however small the cross moments: they are exact."""

WAITING = 1024
"""Rows that wait for one product: adding to the moments costs as much as multiplying 1,000 rows."""


@dataclass(frozen=True)
class StoredPairs:
    """Pairs of layers as a file has them; layers are named by their places in `keys`."""

    memory: Count
    seed: int
    n: Count
    keys: list[list[str | int]]
    split: Count | None
    incomplete: list[Count]
    widths: list[Count]
    projections: dict[str, Count]
    rows: list[Tensor] = field(default_factory=list)
    cross: CrossMoments | None = None
    half: PairMoments | None = None
    clustered: bool = False
    samples: Count | None = None
    sample_keys: Tensor | None = None
    kept: KeptSamples | None = None

    def check(self) -> None:
        """Each layer has its rows, or all have their moments; widths agree everywhere."""
        count = len(self.keys)
        places = {*range(count)}
        if len(self.widths) != count or not (
            {*self.incomplete} <= places and {*self.projections} <= {*map(str, places)}
        ):
            raise Malformed(f"pairs of {count} layers cannot have these widths and places")
        if len({*map(tuple, self.keys)}) < count or (self.split or 0) > count:
            raise Malformed("the layers of pairs must have keys of their own, on two sides at most")
        if not all(0 < k < self.widths[int(i)] for i, k in self.projections.items()):
            raise Malformed("layers cannot be projected to no or to more features than they have")
        dims = [self.projections.get(str(i), d) for i, d in enumerate(self.widths)]
        waiting = len(self.rows[0]) if self.rows and self.rows[0].ndim == 2 else 0
        fits = [tuple(rows.shape) for rows in self.rows] == [(waiting, d) for d in dims[: len(self.rows)]]
        if not fits or len(self.rows) not in (0, count) or not all(map(usable, self.rows)):
            raise Malformed(f"the rows of pairs must be finite, one tensor for each of {count} layers")
        if waiting + (0 if self.cross is None else self.cross.n) != self.n:
            raise Malformed(f"pairs of {self.n} rows must hold them, or their moments")
        if self.cross is not None and (self.cross.dims != dims or self.cross.split != self.split):
            raise Malformed("the moments of pairs must be of their layers")
        if (self.half is None) != (not self.projections):
            raise Malformed("pairs must have both projections and moments at half their width, or neither")
        folded = [k // 2 if str(i) in self.projections else k for i, k in enumerate(dims)]
        if self.half is not None and self.half.widths != folded:
            raise Malformed(f"half of {dims} features cannot be {self.half.widths}")
        keys = self.sample_keys
        if keys is not None and (keys.dtype != torch.float64 or keys.shape != (waiting,)):
            raise Malformed(f"{waiting} rows must have as many keys of their samples")
        if self.kept is not None and [rows.shape[1] for rows in self.kept.rows] not in ([], dims):
            raise Malformed("the samples kept of pairs must be of their layers")


class PairMoments:
    """What the rows of all layers so far say of every pair of them.

    Args:
        memory: bytes that may be taken.
        seed: draws the projection, should one be needed.
        always: bytes up to which rows stay, however small the cross moments.
        clustered: whether samples have several rows each, which go by the sample's key.

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

    Stored = StoredPairs

    def __init__(
        self, *, memory: int = MEMORY, seed: int = 0, always: int = ALWAYS, clustered: bool = False
    ) -> None:
        self.memory = memory
        self.seed = seed
        self.always = always
        self.clustered = clustered
        self.n = 0
        self._counted = 0
        self.keys: list[Hashable] = []
        self.split: int | None = None
        self.incomplete: set[Hashable] = set()
        self.widths: list[int] = []
        self.projections: dict[int, Projection] = {}
        self.cross: CrossMoments | None = None
        self.half: PairMoments | None = None
        self.kept: KeptSamples | None = None
        self._rows: list[list[Tensor]] = []
        self._keys: list[Tensor] = []
        self._drawn = False  # whether keys were given
        self._halved = False  # whether these are another's moments at half the width
        self._waiting = 0

    def add(
        self,
        first: Mapping[Hashable, Tensor],
        second: Mapping[Hashable, Tensor] | None = None,
        keys: Tensor | None = None,
    ) -> None:
        """Adds a batch: rows (n, d) of each layer, the same samples in the same order, with their samples' keys (n,).

        Without `keys` every row is a sample, of a key that follows from its place. Layers are those of the first batch:
        one that is missing later is marked `incomplete`, a new one ignored.
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
        self._drawn |= keys is not None
        keys = sample_keys(self.n, n, self.seed) if keys is None else keys
        self._add(self._projected(parts), keys.to(like.device))

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
        if other.projections and not self.projections:
            # What is held as rows is projected as the other's were, and enters its sums.
            self._project()
        if other.cross is None:
            parts = other._parts(places, self.widths if not other.projections else self.dims)
            self._drawn = True
            self._add(
                self._projected(parts) if self.projections and not other.projections else parts,
                other.keys_of_rows,
            )
            return self
        other.flush()
        if self.cross is None:
            self._condense()
        self.flush()
        self._take(other, places)
        return self

    def _take(self, other: PairMoments, places: list[int | None]) -> None:
        """Adds the sums of another, which hold all that it has."""
        assert self.cross is not None
        assert other.cross is not None
        self.cross += other.cross.reordered(places, self.dims, self.split)
        if self.kept is not None and other.kept is not None and other.kept.rows:
            kept = other.kept.reordered(places, self.dims)
            self.kept.add(kept.rows, kept.keys)
        elif other.kept is None:  # of an older version: samples of one part alone show nothing of the other
            self.kept = None
        self.n += other.n
        self._counted += other._counted
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
        if (self.projections or other.projections) and (self.seed, self.memory) != (other.seed, other.memory):
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

    @property
    def keys_of_rows(self) -> Tensor:
        """The keys of the kept rows' samples, (n,)."""
        return torch.cat(self._keys)

    def flush(self) -> None:
        """Brings waiting rows into the moments."""
        if self.cross is not None and self._waiting:
            rows = [torch.cat(chunks) for chunks in self._rows]
            if self.kept is not None:
                self.kept.add(rows, self.keys_of_rows)
            self.cross.add(rows)
            self._rows, self._keys, self._waiting = [[] for _ in self.keys], [], 0

    def stored(self) -> StoredPairs:
        """The pairs for a file."""
        return StoredPairs(
            self.memory,
            self.seed,
            self.n,
            [plain(key) for key in self.keys],
            self.split,
            [i for i, key in enumerate(self.keys) if key in self.incomplete],
            self.widths,
            {str(i): projection.k for i, projection in self.projections.items()},
            [self.rows(i) for i in range(len(self.keys))] if self._waiting else [],
            self.cross,
            self.half,
            self.clustered,
            self.samples,
            self.keys_of_rows if self._waiting and self._drawn else None,
            self.kept,
        )

    @classmethod
    def restored(cls, stored: StoredPairs) -> PairMoments:
        """The pairs that `stored` gave."""
        pairs = cls(memory=stored.memory, seed=stored.seed, clustered=stored.clustered)
        pairs.n, pairs.split, pairs.widths = stored.n, stored.split, list(stored.widths)
        pairs._counted = stored.n if stored.samples is None else stored.samples
        pairs.keys = [key_from(key) for key in stored.keys]
        pairs.incomplete = {pairs.keys[i] for i in stored.incomplete}
        for i, k in stored.projections.items():
            pairs.projections[int(i)] = Projection.draw(pairs.widths[int(i)], k, pairs.seed)
        pairs._rows = [[rows] for rows in stored.rows] or [[] for _ in pairs.keys]
        pairs._waiting = len(stored.rows[0]) if stored.rows else 0
        pairs.cross, pairs.half, pairs.kept = stored.cross, stored.half, stored.kept
        if pairs.half is not None:
            pairs.half._halved = True
        pairs._drawn = stored.sample_keys is not None
        if pairs._waiting:
            first = pairs.n - pairs._waiting
            drawn = sample_keys(first, pairs._waiting, pairs.seed).to(stored.rows[0].device)
            pairs._keys = [drawn if stored.sample_keys is None else stored.sample_keys]
        return pairs

    @property
    def samples(self) -> int:
        """The independent samples that the rows are of."""
        return self._counted if self.clustered else self.n

    @property
    def dims(self) -> list[int]:
        """The width each layer is held in: its features, or fewer where it is projected."""
        return [self.projections[i].k if i in self.projections else d for i, d in enumerate(self.widths)]

    @property
    def form(self) -> str:
        """How the pairs are held: `rows` or `moments`."""
        return "rows" if self.cross is None else "moments"

    def __repr__(self) -> str:
        projected = f", {len(self.projections)} of them projected" if self.projections else ""
        return f"PairMoments({len(self.keys)} layers{projected}, n={self.n}, held as {self.form})"

    def _add(self, parts: list[Tensor], keys: Tensor) -> None:
        if self.half is not None:
            self.half._add(self._folded(parts), keys)
        for chunks, rows in zip(self._rows, parts, strict=True):
            chunks.append(rows)
        self._keys.append(keys)
        self.n += len(parts[0])
        self._counted += len(keys.unique()) if self.clustered else 0
        self._waiting += len(parts[0])
        if self.cross is not None:
            if self._waiting >= WAITING:
                self.flush()
            return
        moments = budget.moment_bytes(self.dims, self.split)
        if self._row_bytes() <= min(self.memory, max(moments, self.always)):
            return
        if moments > self._for_moments and not self.projections:
            self._project()
        if self._row_bytes() > min(self.memory, max(budget.moment_bytes(self.dims, self.split), self.always)):
            self._condense()
            self.flush()

    def _condense(self) -> None:
        """Goes over to the moments, and to samples kept in full for what they leave of the budget."""
        self.cross = CrossMoments(self.dims, self.split)
        if not self._halved:
            most = budget.most_kept(self.memory - self._for_moments, self.dims, self.clustered)
            self.kept = KeptSamples(most, self.clustered)

    @property
    def _for_moments(self) -> int:
        return budget.for_moments(self.memory, self.widths, self.split)

    def _row_bytes(self) -> int:
        return budget.ITEM * self.n * sum(self.dims) * (3 if self.projections else 2) // 2

    def _project(self) -> None:
        """Projects the layers wider than the budget allows, and begins the moments at half the width."""
        k = budget.projected_width(self._for_moments, self.widths, self.split)
        self.projections = {i: Projection.draw(d, k, self.seed) for i, d in enumerate(self.widths) if d > k}
        held = self._projected([torch.cat(chunks) for chunks in self._rows])
        self._rows = [[rows] for rows in held]
        self.half = PairMoments(
            memory=self.memory, seed=self.seed, always=self.always, clustered=self.clustered
        )
        self.half.keys, self.half.split, self.half._halved = self.keys, self.split, True
        folded = self._folded(held)
        self.half.widths = [rows.shape[1] for rows in folded]
        self.half._rows = [[] for _ in self.keys]
        self.half._add(folded, self.keys_of_rows)

    def _affordable(self) -> None:
        least = budget.least_bytes(self.widths, self.split)
        if least > self.memory:
            raise ValueError(
                f"Argument `memory` must be at least {least} bytes for {len(self.keys)} layers, but is "
                f"{self.memory}. Give more, or choose fewer layers."
            )

    def _projected(self, parts: list[Tensor]) -> list[Tensor]:
        return [self.projections[i](rows) if i in self.projections else rows for i, rows in enumerate(parts)]

    def _folded(self, parts: list[Tensor]) -> list[Tensor]:
        """Projected rows at half their width: pairs of buckets become one."""
        return [
            rows[:, : rows.shape[1] // 2] + rows[:, rows.shape[1] // 2 :] if i in self.projections else rows
            for i, rows in enumerate(parts)
        ]
