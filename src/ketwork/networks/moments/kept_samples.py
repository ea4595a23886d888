"""Whole samples of a comparison, those of the smallest keys, kept in full: they show how much samples differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ketwork.records import Count, Form, Malformed

SAMPLES = 128
"""The most samples that are kept: standard errors of pairs are then known to some 6 %."""


def _nothing() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)


@dataclass
class KeptSamples:
    """The rows (R, dᵢ) of every layer for some samples; rows of one sample share its key and stand together.

    Kept are the samples with the smallest keys, up to `SAMPLES` of them and `most` rows, so that parts of data add up
    to what their union keeps. With `clustered` rows of one key are one sample, else each row is one.
    """

    most: Count
    clustered: bool = False
    rows: list[Tensor] = field(default_factory=list)
    keys: Annotated[Tensor, Form("real n")] = field(default_factory=_nothing)

    def check(self) -> None:
        """Every layer has the same rows, and they are finite."""
        shapes = [rows.ndim == 2 and len(rows) == len(self.keys) for rows in self.rows]
        if not all(shapes) or (not self.rows and len(self.keys)):
            raise Malformed("kept samples must have as many rows in every layer as there are keys")
        if not all(map(usable, self.rows)):
            raise Malformed("the rows of kept samples must be finite")

    def add(self, rows: list[Tensor], keys: Tensor) -> None:
        """Takes in the rows (n, dᵢ) of every layer, of samples with these keys (n,)."""
        worst = float(self.keys.max()) if len(self.keys) and self._full else 1.0
        offered = (keys <= worst).nonzero()[:, 0]
        if self.most == 0 or not len(offered):
            return
        if not self.rows:
            self.rows, self.keys = [part[:0] for part in rows], keys[:0]
        keys = torch.cat([self.keys, keys[offered]])
        stay = first_samples(keys, self.clustered, self.most)
        self.rows = [
            torch.cat([kept, part[offered].to(kept)])[stay]
            for kept, part in zip(self.rows, rows, strict=True)
        ]
        self.keys = keys[stay]

    def reordered(self, places: list[int | None], dims: list[int]) -> KeptSamples:
        """The same samples for layers in another order, 0 for those that are not here."""
        if not self.rows:
            return self
        like = self.rows[0]
        rows = [
            like.new_zeros(len(self.keys), d) if place is None else self.rows[place]
            for place, d in zip(places, dims, strict=True)
        ]
        return KeptSamples(self.most, self.clustered, rows, self.keys)

    @property
    def _full(self) -> bool:
        """Whether only samples of smaller keys can still come in."""
        count = len(self.keys.unique()) if self.clustered else len(self.keys)
        return count >= SAMPLES


def first_samples(keys: Tensor, clustered: bool, most: int | None = None) -> Tensor:
    """The rows of the samples with the smallest keys, up to `SAMPLES` of them and `most` rows, in order of the keys."""
    order = keys.argsort(stable=True)
    if not clustered:
        return order[: SAMPLES if most is None else min(SAMPLES, most)]
    _, counts = keys[order].unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)[:SAMPLES]
    ends = ends if most is None else ends[ends <= most]
    return order[: int(ends[-1]) if len(ends) else 0]


def usable(rows: Tensor) -> bool:
    """Whether these are finite real numbers."""
    return rows.is_floating_point() and bool(rows.isfinite().all())
