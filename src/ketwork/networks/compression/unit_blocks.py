"""Blocks that repeat: what is found in one of them is expected in those like it, and is tried like all else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ketwork.networks.compression.carriers import Carrier
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.unit_feeds import Feed

Finding = Feed | str  # the units of a layer, or why none can be removed


@dataclass
class Blocks:
    """What was found of layers, for the layers at the same place in blocks like theirs.

    Blocks are modules numbered in their paths; those of one class whose tensors have the same shapes are alike. A
    reader in the next block is expected in the block after that, and what is in none stays where it is. That no units
    can be removed is expected where two blocks gave the same reason.
    """

    model: nn.Module
    layers: Mapping[str, WeightLayer]
    carriers: Mapping[str, Carrier]
    _known: dict[str, list[tuple[str, Finding]]] = field(default_factory=dict)
    _kinds: dict[str, Any] = field(default_factory=dict)

    def note(self, path: str, finding: Finding) -> None:
        """Keeps what was found of a layer."""
        self._known.setdefault(_pattern(path), []).append((path, finding))

    def expected(self, path: str) -> Finding | None:
        """What is expected of a layer, None where it is to be found out."""
        known = self._known.get(_pattern(path), [])
        alike = [
            (other, result, place)
            for other, result in known
            if (place := self._place(other, path)) is not None
        ]
        if not alike:
            return None
        other, finding, place = alike[0]
        if isinstance(finding, str):
            return finding if len(alike) > 1 and alike[1][1] == finding else None
        step = int(path.split(".")[place]) - int(other.split(".")[place])
        start = other.split(".")[:place]

        def moved(name: str) -> str:
            parts = name.split(".")
            if parts[:place] == start and len(parts) > place and parts[place].isdigit():
                parts[place] = str(int(parts[place]) + step)
            return ".".join(parts)

        sources = {moved(name): rows for name, rows in finding.sources.items()}
        readers = {moved(name): columns for name, columns in finding.readers.items()}
        carriers = {replace(one, path=moved(one.path)): own for one, own in finding.carriers.items()}
        same = all(
            (layer := self.layers.get(moved(name))) is not None
            and (layer.kind, layer.k, layer.m)
            == (self.layers[name].kind, self.layers[name].k, self.layers[name].m)
            for name in [*finding.sources, *finding.readers]
        )
        if not same or any(self.carriers.get(one.path) != one for one in carriers):
            return None
        return Feed(sources, readers, carriers)

    def _place(self, a: str, b: str) -> int | None:
        """The place of the one number in which two paths differ, where the blocks so numbered are alike."""
        one, two = a.split("."), b.split(".")
        differ = [i for i, (x, y) in enumerate(zip(one, two, strict=True)) if x != y]
        if len(differ) != 1 or differ[0] == len(one) - 1 or not (one[differ[0]] + two[differ[0]]).isdigit():
            return None
        blocks = [".".join(parts[: differ[0] + 1]) for parts in (one, two)]
        return differ[0] if self._kind(blocks[0]) == self._kind(blocks[1]) else None

    def _kind(self, path: str) -> Any:
        if path not in self._kinds:
            module = self.model.get_submodule(path)
            shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
            self._kinds[path] = [type(part) for part in module.modules()], shapes
        return self._kinds[path]


def _pattern(path: str) -> str:
    """The path without its numbers."""
    return re.sub(r"\d+", "#", path)
