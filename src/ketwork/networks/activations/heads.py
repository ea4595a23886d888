"""The heads of attention modules: each is some columns of what the output projection reads, and has a name of its own.

Heads stand beside each other on the last axis of the projection's input, so that head h of H holds columns h·w to
(h + 1)·w with w = width/H: `layers.3.self_attn.head.5` is the sixth. Where several heads share keys and values (grouped
queries) these are the heads of the queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ketwork.networks.activations.spots import ROOT, Part, Spot

# By name, as each library has its own.
_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "out_lin", "wo", "o", "proj", "linear_out")
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
HEAD = ".head."
"""What stands between an attention module's path and the number of its head."""


@dataclass(frozen=True)
class Heads:
    """The heads of one attention module, at `path`: a place for each, of `module` or one inside it."""

    path: str
    module: nn.Module
    spots: tuple[Spot, ...]


def heads_of(modules: Mapping[str, nn.Module]) -> dict[str, Heads]:
    """The heads of each attention module, by its path; `modules` are those of a network by theirs.

    A module is one where its class is called attention, it or its configuration says how many heads there are, and
    they are together the width of what its output projection reads (of what it puts out itself, where the projection
    is in another module, as BERT's is).
    """
    result = {}
    for path, module in modules.items():
        count = _count(module) if _ATTENTION.search(type(module).__name__) else None
        spot = None if count is None else _place(path, module)
        if count is None or spot is None or spot[1] % count:
            continue
        place, width = spot
        size = width // count
        parts = (
            Part(f"{path}{HEAD}{h}", f"{type(module).__name__} head", (h * size, (h + 1) * size), width)
            for h in range(count)
        )
        spots = tuple(Spot(place.path, place.side, place.place, part) for part in parts)
        result[path] = Heads(path, module, spots)
    return result


def _count(module: nn.Module) -> int | None:
    """How many heads a module has, as it or its configuration says."""
    for each in _described(module):
        for name in _COUNTS:
            count = getattr(each, name, None)
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                return count
    return None


def _described(module: nn.Module) -> Iterator[Any]:
    yield module
    config = getattr(module, "config", None)
    if config is not None and not isinstance(config, nn.Module):
        yield config


def _place(path: str, module: nn.Module) -> tuple[Spot, int] | None:
    """Where a module's heads stand beside each other, and how wide they are together."""
    if isinstance(module, nn.MultiheadAttention):
        return None  # calls no projection that could be seen
    for name, child in module.named_children():
        if name in _PROJECTIONS and (width := _width(child)) is not None:
            return Spot(name if path == ROOT else f"{path}.{name}", "input"), width
    width = getattr(module, "all_head_size", None)
    return (Spot(path, "output"), width) if isinstance(width, int) and width > 0 else None


def _width(module: nn.Module) -> int | None:
    """How many features a linear layer reads; that of transformers' GPT-2 has its weight the other way round."""
    width = getattr(module, "in_features", None)
    if type(module).__name__ == "Conv1D":
        width = getattr(module, "nx", None)
    return width if isinstance(width, int) else None
