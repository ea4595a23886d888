"""What is known of a layer beside its numbers: its name and call, where in its output its activation stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

Key = tuple[str, int]
"""A layer's name and the index of its call in one forward pass."""

POOLED = -1
"""The index of a call that stands for all calls of a module together."""


@dataclass(frozen=True)
class LayerInfo:
    """A layer at one of its calls.

    `kind` is the module's class; `leaf` is where in the module's output the activation stands, `axis` the axis of it
    that holds the features, `positions` whether a sample has several; `aliases` are other modules that returned the
    very tensor.
    """

    name: str
    call: int
    kind: str
    leaf: str = ""
    axis: int = -1
    positions: bool = False
    aliases: tuple[str, ...] = ()

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

    `present` (samples, positions) says which positions exist where the output itself knows (nested and packed
    tensors); None: it does not.
    """

    info: LayerInfo
    values: Tensor
    present: Tensor | None = None

    @property
    def key(self) -> Key:
        """The key of its layer."""
        return self.info.key
