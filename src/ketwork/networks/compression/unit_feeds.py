"""Units that can be removed, and what stays of layers where some are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.compression.carriers import Carrier
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.unit_order import staying


@dataclass(frozen=True)
class Feed:
    """Units that can be removed: rows (units, a) of the layers that put them out, columns (units, b) of their readers.

    Both are by path. Several layers put out the same units where what they put out is added or multiplied, entry by
    entry, and where they are the queries, keys and values of attention heads. `carriers` are the channels (units, c) of
    what works channel by channel in between.
    """

    sources: dict[str, Tensor]
    readers: dict[str, Tensor]
    carriers: dict[Carrier, Tensor] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The first of its sources."""
        return next(iter(self.sources))

    @property
    def units(self) -> int:
        """How many."""
        return len(self.sources[self.path])


@dataclass(frozen=True)
class Staying:
    """What stays where units go: rows and columns of layers by path, and channels of carriers."""

    rows: dict[str, Tensor]
    columns: dict[str, Tensor]
    carriers: dict[Carrier, Tensor]


def staying_of(
    result: Sequence[Feed], units: Mapping[str, Tensor], layers: Mapping[str, WeightLayer]
) -> Staying:
    """What stays of each layer and carrier that loses any, where these `units` of feeds stay, by path."""
    rows: dict[str, Tensor] = {}
    stay: dict[str, Tensor] = {}
    kept_of: dict[Carrier, Tensor] = {}
    for feed in result:
        if feed.path in units:
            kept = units[feed.path]
            rows |= {path: own[kept].flatten().sort().values for path, own in feed.sources.items()}
            kept_of |= {carrier: own[kept].flatten().sort().values for carrier, own in feed.carriers.items()}
            for path, columns in feed.readers.items():
                total = torch.ones(layers[path].k, dtype=torch.bool)
                part = staying(columns, kept, layers[path].k)
                stay[path] = stay.get(path, total) & torch.zeros_like(total).index_fill(0, part, True)
    return Staying(rows, {path: mask.nonzero()[:, 0] for path, mask in stay.items()}, kept_of)
