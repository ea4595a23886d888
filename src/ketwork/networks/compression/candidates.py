"""A candidate: one way of making the network smaller, with what it did to each layer and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from ketwork.networks.compression.forms import DENSE, Form

DEAD = "dead: "
"""What the note of a layer begins with on which the predictions did not depend."""


@dataclass(frozen=True)
class LayerChange:
    """What became of one layer.

    `form` is that of its matrix, `units` how many stay, None where all do. `discarded` is the share of its weight
    (of what the fit minimises) that was given up, `kl_increase` what that costs by estimate, nats a prediction.
    `unchanged` is a layer that keeps its matrix and all that it reads.
    """

    form: Form = DENSE
    discarded: float = 0.0
    kl_increase: float = 0.0
    note: str = ""
    units: int | None = None
    unchanged: bool = False

    @property
    def rank(self) -> int | None:
        """The rank of its matrix, None where that stays one."""
        return self.form.rank


@dataclass(frozen=True)
class Candidate:
    """A smaller network, plain torch.nn, with what became of each layer that could be compressed, by path."""

    name: str
    model: nn.Module
    changes: dict[str, LayerChange] = field(default_factory=dict)
