"""A candidate: one way of making the network smaller, with what it did to each layer and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer.

    `rank` is None where its matrix stays one, `units` where all its units stay. `discarded` is the share of its weight
    (of what the fit minimises) that was given up, `kl_increase` what that costs by estimate, nats a prediction. `untouched` is
    a layer that keeps its matrix and all that it reads.
    """

    rank: int | None = None
    discarded: float = 0.0
    kl_increase: float = 0.0
    note: str = ""
    units: int | None = None
    untouched: bool = False


@dataclass(frozen=True)
class Candidate:
    """A smaller network, plain torch.nn, with what became of each layer that could be compressed, by path."""

    name: str
    model: nn.Module
    changes: dict[str, LayerChange] = field(default_factory=dict)
