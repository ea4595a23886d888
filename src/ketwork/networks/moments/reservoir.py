"""A bounded, fair sample of a layer's samples, kept completely enough to say how uncertain a number is.

Each sample of a pass draws a random key; the samples with the smallest keys stay. So the reservoir is a
uniform sample of all samples seen, two reservoirs merge into a fair one of both, and layers of one pass keep
the same samples. Of each sample it keeps a few of its kets with their norms, drawn among its positions
without replacement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ketwork.networks.activations import unit
from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.positions import Positions
from ketwork.records import Count, Form

SAMPLES = 128
"""Most samples kept: a standard error estimated from 128 is itself good to about 6 %."""

HEAVIEST = SAMPLES // 4
"""Most samples that are kept for their weight, beside those drawn, where kets weigh by their squared norm."""

_BYTES = 2 << 20
_MOST_KETS = 128
_FEWEST_KETS = (
    8  # a sum over a sample's positions that is estimated from fewer has an error that is mostly noise
)


@dataclass
class Reservoir:
    """Up to `most` samples of one layer; the first axis of every tensor counts them.

    keys (R,) decide who stays, and are on the host in a pass; counts (R,) how many nonzero kets the sample has; kets
    (R, P, d) and norms (R, P) some of them, of which the first min(P, counts) are real; weights (R,) the weight of all
    of the sample's kets, where these weigh by their squared norm.
    """

    keys: Annotated[Tensor, Form("real r")]
    counts: Annotated[Tensor, Form("int r")]
    kets: Annotated[Tensor, Form("ket r p d")]
    norms: Annotated[Tensor, Form("real r p")]
    most: Count = SAMPLES
    weights: Annotated[Tensor, Form("real r")] | None = None

    @classmethod
    def from_batch(
        cls,
        values: Tensor,
        positions: Positions,
        keys: BatchKeys,
        most: int = SAMPLES,
        weights: Tensor | None = None,
        heaviest: bool = False,
        below: float = math.inf,
    ) -> Reservoir:
        """At most so many samples of one batch: activations (N, T, d), its nonzero vectors' positions, keys (N,).

        A sample's key also draws its positions: they are the same in every layer, whatever batch it came in. Only those
        with keys `below` are taken. Of the `heaviest` the weights (N,) decide who stays, as keys −w, on the device of
        the activations: whether these are below is seen when they are on the host (`settle`).
        """
        t, d = values.shape[1:]
        p = kets_each(d, t, values.element_size())
        if heaviest and weights is not None:
            rank = -weights
            kept = rank.argsort(stable=True)[:most]
            rank, order = rank[kept], None if t <= p else keys.orders(None, t, values.device)[kept]
        else:
            some = keys.first(most, below)
            rank, kept = keys.values[some], keys.on(values.device, some)
            order = None if t <= p else keys.orders(some, t, values.device)
        valid = values.new_ones(len(kept), t, dtype=torch.bool)
        valid = valid if positions.present is None else positions.present[kept]
        places = _placed(order, valid)[:, :p]
        real = valid.gather(1, places)
        kets, norms = unit(values[kept[:, None], places])
        return cls(
            rank,
            valid.sum(dim=1),
            kets.masked_fill_(~real[..., None], 0),
            norms.masked_fill_(~real, 0),
            most=most,
            weights=None if weights is None else weights[kept],
        )

    def settle(self, below: float) -> None:
        """Keeps those whose keys, which are on the host now, are `below`."""
        some = (self.keys < below).nonzero().squeeze(1)
        if len(some) < len(self.keys):
            for name, tensor in self._tensors().items():
                setattr(self, name, tensor[some])

    @property
    def worst(self) -> float:
        """A sample whose key is not below this would not stay."""
        return float(self.keys.max()) if len(self.keys) >= self.most else float("inf")

    def __iadd__(self, other: Reservoir) -> Reservoir:
        if self.weights is None or other.weights is None:
            self.weights = None
        self.most = min(self.most, other.most)
        if len(self.keys) > self.most:
            stay = self.keys.argsort()[: self.most]
            for name, tensor in self._tensors().items():
                setattr(self, name, tensor[stay])
        free = self.most - len(self.keys)
        if free > 0:
            order = other.keys.argsort()
            self._append(other, order[:free])
            rest = order[free:]
        else:
            rest = torch.arange(len(other.keys), device=other.keys.device)
        if len(rest):
            self._replace(other, rest)
        return self

    def valid(self) -> Tensor:
        """Which of the kept kets are real, (R, P)."""
        return torch.arange(self.kets.shape[1], device=self.counts.device)[None] < self.counts[:, None]

    def _tensors(self) -> dict[str, Tensor]:
        names = ("keys", "counts", "kets", "norms", "weights")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def _append(self, other: Reservoir, which: Tensor) -> None:
        for name, mine, theirs in self._pairs(other):
            setattr(self, name, torch.cat([mine, theirs[which]]))

    def _replace(self, other: Reservoir, which: Tensor) -> None:
        """Takes those of the other's samples that beat the worst of these, in place."""
        keys = torch.cat([self.keys, other.keys[which]])
        best = keys.argsort()[: len(self.keys)]
        stays = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
        stays[best] = True
        leaving = (~stays[: len(self.keys)]).nonzero().squeeze(1)
        coming = which[stays[len(self.keys) :]]
        for _, mine, theirs in self._pairs(other):
            mine[leaving] = theirs[coming]

    def _pairs(self, other: Reservoir) -> list[tuple[str, Tensor, Tensor]]:
        """Each field of both, brought to a common number of kets."""
        size = max(self.kets.shape[1], other.kets.shape[1])
        for reservoir in (self, other):
            for name in ("kets", "norms"):
                setattr(reservoir, name, _padded(getattr(reservoir, name), size))
        mine, theirs = self._tensors(), other._tensors()
        return [(name, mine[name], theirs[name]) for name in mine]


def _placed(order: Tensor | None, valid: Tensor) -> Tensor:
    """The positions (N, T) of each sample, valid ones first; in the order of these numbers, None: as they are."""
    order = torch.zeros_like(valid, dtype=torch.float32) if order is None else order
    return torch.where(valid, order, order + 1).argsort(dim=1, stable=True)


def kets_each(d: int, t: int, itemsize: int) -> int:
    """How many kets of a sample are kept: at least eight, or the spread inside a sample could hardly be seen."""
    affordable = _BYTES // (SAMPLES * d * itemsize)
    return min(t, max(_FEWEST_KETS, min(affordable, _MOST_KETS)))


def _padded(tensor: Tensor, size: int) -> Tensor:
    if tensor.shape[1] == size:
        return tensor
    missing = tensor.new_zeros(len(tensor), size - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], dim=1)
