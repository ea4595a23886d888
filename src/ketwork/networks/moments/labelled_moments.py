"""What a layer's readouts are solved from and scored on: moments by label, and two bounded sets of samples.

One ket a sample: positions are pooled by their mean (one ket a position where each position has a label).
Each sample's random key sends it, once for all layers, to the fitting part or (a quarter, at most
`HELD_MOST` kets) to the held-out part, which no fit sees. `checks` are kets of the fitting part kept as they
are, on which regularisation is chosen: the sums do not hold them, so a fit to the sums has not seen them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from torch import Tensor

from ketwork.networks.activations import MOST_LABELS, unit
from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.batch_labels import Labelled
from ketwork.networks.moments.class_moments import ClassMoments
from ketwork.networks.moments.pooling import pooled_rows
from ketwork.networks.moments.positions import Positions
from ketwork.records import Count, Form, Malformed, check_codes

HELD_SHARE = 0.25
HELD_MOST = 1024
CHECK_SHARE = 0.25
"""Of the fitting part."""
CHECK_MOST = 512
_WAITING = 1024  # kets that wait until they are sorted into the parts together


@dataclass(frozen=True)
class Limits:
    """How many kets a layer's statistics keep held out, as checks and waiting, and the bytes of its class moments."""

    held: Count = HELD_MOST
    checks: Count = CHECK_MOST
    waiting: Count = _WAITING
    moments: Count | None = None

    def common(self, other: Limits) -> Limits:
        """The smaller of both."""
        moments = min(filter(None, (self.moments, other.moments)), default=None)
        return Limits(
            min(self.held, other.held),
            min(self.checks, other.checks),
            min(self.waiting, other.waiting),
            moments,
        )


@dataclass(frozen=True)
class Rows:
    """Real kets (n, d) with targets (n,) or (n, m), the samples' keys (n,) and indices in the data (n,)."""

    kets: Annotated[Tensor, Form("real n d")]
    targets: Tensor
    keys: Annotated[Tensor, Form("real n")]
    samples: Annotated[Tensor, Form("int n")]

    def check(self) -> None:
        """There is a code, or as many numbers as for the others, for each row."""
        codes, numbers = self.targets.dtype == torch.int64, self.targets.dtype == torch.float64
        fits = (codes and self.targets.ndim == 1) or (numbers and self.targets.ndim == 2)
        if not fits or len(self.targets) != len(self) or not bool(self.targets.isfinite().all()):
            raise Malformed("targets must be a code or finite numbers for each row")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, which: Tensor | slice) -> Rows:
        return Rows(self.kets[which], self.targets[which], self.keys[which], self.samples[which])

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """All rows of the parts, one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in _ROWS))

    @property
    def codes(self) -> Tensor:
        """The class of each row, 0 for all where the targets are numbers."""
        return self.targets if self.targets.ndim == 1 else torch.zeros_like(self.samples)


@dataclass(frozen=True)
class Sums:
    """Sums over kets: their moments by class and, for targets that are numbers, Σ y xᵀ (m, d) and Σ y (m,)."""

    moments: ClassMoments
    cross: Annotated[Tensor, Form("real m d")] | None = None
    level: Annotated[Tensor, Form("real m")] | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The features of the rows."""
        return {"d": self.moments.d}

    def check(self) -> None:
        """Numbers have both sums."""
        if (self.cross is None) != (self.level is None):
            raise Malformed("targets must have both a level and products with the rows, or neither")

    @classmethod
    def from_rows(cls, rows: Rows, classes: int, most: int | None = None) -> Sums:
        """The sums over these rows, with `most` bytes for the moments."""
        moments = ClassMoments.from_vectors(rows.kets, rows.codes, classes, most)
        if rows.targets.ndim == 1:
            return cls(moments)
        return cls(moments, rows.targets.T @ rows.kets.double(), rows.targets.sum(dim=0))

    def __add__(self, other: Sums) -> Sums:
        moments = self.moments + other.moments
        if self.cross is None or other.cross is None or self.level is None or other.level is None:
            return Sums(moments)
        return Sums(moments, self.cross + other.cross, self.level + other.level)


@dataclass
class LabelledMoments:
    """The sums over the fitting part without `checks`, and the two kept sets; a monoid under `+=`.

    `waiting` holds batches that have not been sorted into these three yet; `settle` sorts them. `complex`
    says that kets are complex, kept as their real and imaginary parts side by side.
    """

    held: Rows
    checks: Rows
    sums: Sums
    complex: bool = False
    waiting: list[Rows] = field(default_factory=list)
    limits: Limits = Limits()

    @classmethod
    def from_batch(
        cls,
        values: Tensor,
        rows: Tensor,
        positions: Positions,
        keys: BatchKeys,
        labels: Labelled,
        limits: Limits | None = None,
    ) -> tuple[LabelledMoments, Tensor] | None:
        """One batch: activations (N, T, d), their vectors (n, d) at positions that exist, keys (N,).

        Samples without a label are skipped; None where the layer does not have the positions that labels are of. Beside
        stands which of the rows can be used, (m,), on the device: zero and non-finite ones are to be dropped (`drop`).
        """
        if labels.positions and labels.targets.shape != positions.shape:
            return None
        labelled = labels.rows(keys, positions)
        vectors = values.flatten(0, 1) if labels.positions else pooled_rows(rows, positions)
        if labelled.which is not None:
            vectors = vectors.index_select(0, keys.on(values.device, labelled.which))
        kets, norms = unit(vectors)
        if kets.is_complex():
            kets = torch.cat([kets.real, kets.imag], dim=-1)
        beside = (
            keys.on(values.device, each) for each in (labelled.targets, labelled.keys, labelled.samples)
        )
        part = cls.from_rows(Rows(kets, *beside), values.is_complex(), limits)
        return part, (norms > 0) & torch.isfinite(norms)

    def drop(self, usable: Tensor) -> None:
        """Keeps those of a batch's rows that can be used."""
        self.waiting = [rows[usable] for rows in self.waiting]

    @classmethod
    def from_rows(cls, rows: Rows, is_complex: bool = False, limits: Limits | None = None) -> LabelledMoments:
        """The statistics of these rows."""
        nothing = rows[:0]
        return cls(nothing, nothing, Sums.from_rows(nothing, 0), is_complex, [rows], limits or Limits())

    def __iadd__(self, other: LabelledMoments) -> LabelledMoments:
        self.limits = self.limits.common(other.limits)
        self.sums = self.sums + other.sums if len(other.sums.moments.counts) else self.sums
        self.waiting += [rows for rows in (*other.waiting, other.held, other.checks) if len(rows)]
        if sum(map(len, self.waiting)) > max(self.limits.waiting, 2 * len(self.sums.moments.counts)):
            self.settle()
        return self

    def moved(self, codes: Tensor, start: int) -> LabelledMoments:
        """The same for data that stand `start` samples later, of which codes[k] is the code k (none for numbers)."""

        def rows(given: Rows) -> Rows:
            targets = codes.to(given.targets)[given.targets] if len(codes) else given.targets
            return replace(given, targets=targets, samples=given.samples + start)

        sums = replace(self.sums, moments=self.sums.moments.recoded(codes)) if len(codes) else self.sums
        return LabelledMoments(
            rows(self.held),
            rows(self.checks),
            sums,
            self.complex,
            [rows(part) for part in self.waiting],
            self.limits,
        )

    def settle(self) -> None:
        """Sorts the waiting rows into the held-out part, the checks and the sums, which they then bound."""
        if not self.waiting:
            return
        rows = Rows.joined([self.held, self.checks, *self.waiting])
        self.waiting = []
        out = rows.keys < HELD_SHARE
        self.held, back = _smallest(rows[out], rows.keys[out], self.limits.held)
        # Samples evicted from the held-out part have small keys: they never become checks.
        kept = ~out & (rows.keys >= 1 - CHECK_SHARE * (1 - HELD_SHARE))
        self.checks, fit = _smallest(rows[kept], 1 - rows.keys[kept], self.limits.checks)
        classes = (
            1 + int(rows.codes.max()) if len(rows) else 0
        )  # of the kept rows too: scores have a column for each
        fit = Rows.joined([back, fit, rows[~out & ~kept]])
        del rows  # of a wide layer both would not fit
        self.sums = self.sums + Sums.from_rows(fit, classes, self.limits.moments)

    def fitting(self, classes: int = 0) -> Sums:
        """The sums over the complete fitting part, for at least `classes` classes."""
        self.settle()
        return self.sums + Sums.from_rows(self.checks, classes, self.limits.moments)

    def counts(self, classes: int) -> Tensor:
        """The kets of each class in the fitting part, for at least `classes` classes."""
        self.settle()
        known = self.sums.moments.counts.long()
        counts = torch.bincount(self.checks.codes, minlength=max(classes, len(known)))
        counts[: len(known)] += known
        return counts

    @property
    def classes(self) -> int:
        """How many classes there are at least, if targets are codes."""
        waiting = (1 + int(rows.codes.max()) for rows in self.waiting if len(rows))
        return max(len(self.sums.moments.counts), *waiting, 0)

    def check(self) -> None:
        """All parts are of the same features and labels; those that wait may have new ones."""
        parts = [self.held, self.checks, *self.waiting]
        numbers = self.sums.cross is not None
        for part in parts:
            if part.kets.shape[1] != self.sums.moments.d or (part.targets.ndim == 2) != numbers:
                raise Malformed(
                    "the parts of labelled moments must have the same features and kind of labels"
                )
            if numbers and part.targets.shape[1] != len(self.sums.level):  # type: ignore[arg-type]
                raise Malformed("the parts of labelled moments must have as many numbers a sample")
        if not numbers:
            for part, classes in [(p, len(self.sums.moments.counts)) for p in parts[:2]] + [
                (p, MOST_LABELS) for p in self.waiting
            ]:
                check_codes(part.targets, classes)


_ROWS = ("kets", "targets", "keys", "samples")


def _smallest(rows: Rows, keys: Tensor, most: int) -> tuple[Rows, Rows]:
    """The samples with the smallest keys, at most so many rows of them (but one sample), and the rest."""
    if len(rows) <= most:
        return rows, rows[:0]
    ordered = keys.sort().values
    # A sample's rows share its key and stay together.
    inside = (keys < ordered[most]) | (keys == ordered[0])
    return rows[inside], rows[~inside]
