"""`Labelled`: the labels of a batch, on the host, and which rows of its layers they belong to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.positions import Positions


@dataclass(frozen=True)
class LabelledRows:
    """Rows with a label: which of a batch's samples or positions (m,), None: all; targets, keys, places in the data."""

    which: Tensor | None
    targets: Tensor
    keys: Tensor
    samples: Tensor


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labels of a batch: `targets` (N,), (N, T) or (N, m), the place `start` of its first sample in the data.

    `positions` says that each position has a label. Codes are −1 where there is none.
    """

    targets: Tensor
    start: int
    positions: bool
    _known: dict[Hashable, tuple[LabelledRows, Positions]] = field(default_factory=dict)

    def rows(self, keys: BatchKeys, positions: Positions) -> LabelledRows:
        """The rows with a label, where labels are of these positions among those that exist; found once a batch."""
        place = id(positions) if self.positions else None
        if place not in self._known:
            self._known[place] = self._rows(keys, positions), positions  # so that no others have their id
        return self._known[place][0]

    @property
    def hint(self) -> str:
        """What labels of positions may be meant as, where each is 0 or 1; else nothing."""
        values = self.targets.unique()
        if len(values) != 2 or bool((values < 0).any()):
            return ""
        return (
            " Where they are one-hot, give `labels.argmax(-1)` for classes; where a sample has several labels at once, "
            "give `labels.float()`, which are decoded as numbers."
        )

    def _rows(self, keys: BatchKeys, positions: Positions) -> LabelledRows:
        n, t = positions.shape
        samples = torch.arange(self.start, self.start + n)
        if self.positions:
            there = self.targets >= 0
            there = there if positions.on_host is None else there & positions.on_host
            which = there.flatten().nonzero().squeeze(1)
            owners = which.div(t, rounding_mode="floor")
            return LabelledRows(which, self.targets.flatten()[which], keys.values[owners], samples[owners])
        if self.targets.ndim == 2 or bool((self.targets >= 0).all()):
            return LabelledRows(None, self.targets, keys.values, samples)
        which = (self.targets >= 0).nonzero().squeeze(1)
        return LabelledRows(which, self.targets[which], keys.values[which], samples[which])
