"""A candidate: one way of making the network smaller, with what it did to each layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer.

    `rank` is None where it is dense (as it was, or with neurons removed); `discarded` is the share of the
    layer's weight (what the fit minimises, of all that there was) that was given up, `harm` its estimate in nats.
    """

    path: str
    rank: int | None
    parameters: int
    multiply_adds: float
    discarded: float = 0.0
    harm: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Candidate:
    """A smaller network, plain torch.nn, with one record for each layer that could be compressed.

    `replaced` has the modules by path that are new, for a file that says how to rebuild the network.
    """

    name: str
    model: nn.Module
    layers: tuple[LayerChange, ...]
    replaced: dict[str, nn.Module] = field(default_factory=dict)
