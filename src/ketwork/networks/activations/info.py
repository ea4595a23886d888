"""What is known of a layer beside its numbers: its name and call, where in its output its activation stands."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from ketwork.networks.activations.layout import Layout
from ketwork.networks.activations.linear_range import LinearRange

Key = tuple[str, int]
"""A layer's name and the index of its call in one forward pass."""

POOLED = -1
"""The index of a call that stands for all calls of a module together."""


@dataclass(frozen=True)
class LayerInfo:
    """A layer at one of its calls.

    `kind` is the module's class; `leaf` is where in the module's output the activation stands, `layout` which axes of
    it count the samples and hold the features, `positions` whether a sample has several; `aliases` are other
    modules that returned the very tensor.
    """

    name: str
    call: int
    kind: str
    leaf: str = ""
    layout: Layout = field(default_factory=Layout)
    positions: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def axis(self) -> int:
        """The axis of features, counted from the front; that of the samples where each has a single number."""
        return self.layout.samples if self.layout.features is None else self.layout.features

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.name, self.call

    @property
    def label(self) -> str:
        """Its name, with the number of the call where it is not the first."""
        return self.name if self.call <= 0 else f"{self.name} (call {self.call + 1})"

    def named(self, key: Key, aliases: tuple[str, ...]) -> Self:
        """The same layer under another name and call."""
        return replace(self, name=key[0], call=key[1], aliases=aliases)


@dataclass(frozen=True)
class Activation:
    """What one call of one layer put out: `values` (samples, positions, features).

    `present` (samples, positions) says which positions exist, None: all; `unfit` is the mask that the layer's positions
    should have, where it is of others. `span` is where its vectors lie, of a linear layer with fewer inputs than
    outputs.
    """

    info: LayerInfo
    values: Tensor
    present: Tensor | None = None
    unfit: Tensor | None = None
    span: LinearRange | None = None

    @property
    def key(self) -> Key:
        """The key of its layer."""
        return self.info.key
