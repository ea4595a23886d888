"""Where of a module a row is read: its output, its input, one place in either, or what one of its experts is given.

`"mlp.down_proj:input"` is what the module is called with, `"lstm:output[1][0]"` one place of what it puts out, written
as one would index it: `[1]` of a tuple, `.hidden` of a mapping; of an input, `[0]` is the first argument without a
name, and `.attention_mask` one with a name. `"mlp.experts:expert[3]"` are the vectors that expert 3 is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from ketwork.networks.activations.outputs import Leaf, activations

Side = Literal["input", "output", "expert"]

ROOT = "(model)"
"""The name of the whole network's own output."""

_SPOT = re.compile(r"(?s)(.*):(input|output|expert)((?:\[[^\[\]]+\]|\.\w+)*)")


@dataclass(frozen=True)
class Part:
    """Some of the features that stand at a place: those of one head. `width` counts all that stand there."""

    name: str
    kind: str
    features: tuple[int, int]
    width: int


@dataclass(frozen=True)
class Spot:
    """The side of a module and the place in it; "" is the first that has the form of samples.

    With a `part` it is those features alone, and has the name of that.
    """

    path: str
    side: Side
    place: str = ""
    part: Part | None = None

    @property
    def name(self) -> str:
        """What its row is called: the module's own name for its output."""
        if self.part is not None:
            return self.part.name
        plain = self.side == "output" and not self.place
        return self.path if plain else f"{self.path}:{self.side}{self.place}"

    @property
    def expert(self) -> int:
        """The number of the expert."""
        return int(self.place[1:-1])

    def leaves(self, tree: Any) -> list[Leaf]:
        """The activations at the place."""
        there = [leaf for leaf in activations(tree) if _within(leaf.path, self.place)]
        if self.part is None:
            return there
        fits = (leaf for leaf in there if leaf.tensor.ndim and leaf.tensor.shape[-1] == self.part.width)
        features = self.part.features
        return [
            replace(leaf, tensor=leaf.tensor[..., slice(*features)], complete=leaf.tensor, part=features)
            for leaf in fits
        ]

    def missing(self, tree: Any) -> str:
        """A sentence that says what there is where the place has no activation."""
        if self.part is not None:
            return f"its {self.side} has no tensor of the {self.part.width} features of all heads"
        there = ", ".join(leaf.path or "all of it" for leaf in activations(tree)) or "nowhere"
        return (
            f"its {self.side} has floating-point tensors at {there}, but none at {self.place or 'any place'}"
        )


def spot_of(name: str) -> Spot | None:
    """The place that a name or glob with `:input`, `:output` or `:expert` names; None for a plain one."""
    match = _SPOT.fullmatch(name)
    return None if match is None else Spot(match[1], match[2], match[3])  # type: ignore[arg-type]


def as_tree(inputs: tuple[Any, ...], named: dict[str, Any]) -> dict[Any, Any]:
    """What a module is called with in one mapping: numbers for what has no name."""
    return dict(enumerate(inputs)) | named


def as_inputs(tree: dict[Any, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `as_tree` was made from."""
    inputs = tuple(value for key, value in tree.items() if isinstance(key, int))
    return inputs, {key: value for key, value in tree.items() if not isinstance(key, int)}


def kind_of(module: nn.Module, spot: Spot | None) -> str:
    """What a row of a module says that it is."""
    if spot is not None and spot.part is not None:
        return spot.part.kind
    kind = type(module).__name__
    if any(base.__name__ == "FSDPModule" for base in type(module).__bases__):
        kind = kind.removeprefix("FSDP")  # `fully_shard` gives each module a class of its own
    return kind if spot is None or spot.side == "output" else f"{kind} {spot.side}"


def _within(path: str, place: str) -> bool:
    rest = path.removeprefix(place)
    return path.startswith(place) and (not place or not rest or rest[0] in "[.")
