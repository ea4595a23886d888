"""The parts of a transformer that its layers belong to, by their names: the residual stream, attention, MLP.

A record knows its layers by name and class alone, so this goes by the names that libraries give, as `decoders` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ketwork.networks.activations.decoders import ATTENTION
from ketwork.networks.activations.info import LayerInfo

PartName = Literal["residual stream", "attention", "MLP"]
PARTS: tuple[PartName, ...] = ("residual stream", "attention", "MLP")

_BLOCK = re.compile(r"(?P<list>.*?(?:^|(?<=\.)))(?P<number>\d+)(?:\.(?P<role>.+))?")
_NORM = re.compile(r"norm|(^|\.)ln_", re.IGNORECASE)
_INPUT = ":input"


@dataclass(frozen=True)
class Part:
    """Where a layer stands: in which part, of which block of its list, and as what: its name inside the block.

    The residual stream is a block's own output or input, and that of its norms beside attention and MLP. `role` is ""
    for the block itself.
    """

    name: PartName
    block: int
    role: str


def parts_of(layers: Sequence[LayerInfo]) -> list[Part | None]:
    """The part of each layer; None for what is outside of the lists of blocks that have attention in them.

    >>> names = ["embed", "layer.0.attention", "layer.0.mlp", "layer.0", "layer.1.attention", "layer.1", "head"]
    >>> parts = parts_of([LayerInfo(name, 0, "Linear") for name in names])
    >>> [part and (part.name, part.block) for part in parts][:4]
    [None, ('attention', 0), ('MLP', 0), ('residual stream', 0)]
    >>> parts_of([LayerInfo("features.0", 0, "Conv2d"), LayerInfo("features.1", 0, "ReLU")])
    [None, None]
    """
    matches = [_BLOCK.fullmatch(info.name.removesuffix(_INPUT)) for info in layers]
    lists = {match["list"] for match in matches if match is not None and _in_attention(match["role"] or "")}
    return [
        None
        if match is None or match["list"] not in lists
        else _part(int(match["number"]), match["role"] or "", info.name.endswith(_INPUT))
        for match, info in zip(matches, layers, strict=True)
    ]


def _part(block: int, role: str, before: bool) -> Part:
    if _in_attention(role):
        name: PartName = "attention"
    else:
        name = "residual stream" if not role or _NORM.search(role) else "MLP"
    return Part(name, block, (role + _INPUT * before).removeprefix(":"))


def _in_attention(role: str) -> bool:
    """Whether a name inside a block is in its attention, and not a norm beside it, as `post_attention_layernorm`."""
    return ATTENTION.search(role) is not None and ("." in role or _NORM.search(role) is None)
