"""What one forward pass of an experiment shows of modules' outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ketwork.networks.activations.feature_axis import Flow
from ketwork.networks.activations.info import Key
from ketwork.networks.activations.outputs import Leaf, activations, version_of
from ketwork.networks.activations.row_fingerprints import Fingerprint

GivenAxis = Callable[[str, nn.Module, Tensor], int | None]
"""The axis of features that the user gave for an output."""


@dataclass(frozen=True)
class Sight:
    """One activation in one pass; `node` is its tensor in the flow, `padded` says that its format tells the samples."""

    print: Fingerprint
    node: int
    padded: bool
    given: int | None


@dataclass
class Observation:
    """What one forward pass over n samples shows of modules' outputs, by key and place in the output.

    `chosen` are the modules whose axes are to be found; `others` says that those beside them are seen as well.
    """

    n: int
    given_axis: GivenAxis
    flow: Flow = field(default_factory=Flow)
    outputs: dict[Key, dict[str, Sight]] = field(default_factory=dict)
    others: bool = False
    chosen: set[Key] = field(default_factory=set)
    _calls: dict[str, int] = field(default_factory=dict)
    _prints: dict[tuple[int, float], Fingerprint] = field(default_factory=dict)

    def see(self, path: str, module: nn.Module, given: Sequence[Tensor], output: Any, chosen: bool) -> None:
        """Takes note of one call of one module."""
        leaves = list(activations(output))
        self.flow.see(path, module, given, [leaf.tensor for leaf in leaves])
        if chosen or self.others:
            self.look(path, module, leaves, chosen)

    def look(self, path: str, module: nn.Module, leaves: Sequence[Leaf], chosen: bool) -> None:
        """Takes note of what stands in one call of one module: in its output, or at another place of it."""
        call = self._calls.get(path, 0)
        self._calls[path] = call + 1
        if chosen:
            self.chosen.add((path, call))
        seen = self.outputs.setdefault((path, call), {})
        for leaf in leaves:
            version = self.flow.node(leaf.tensor), version_of(leaf.tensor)
            if version not in self._prints:
                self._prints[version] = Fingerprint.from_tensor(leaf.tensor, self.n)
            axis = self.given_axis(path, module, leaf.tensor)
            # Which axis holds the features of a part is known of the tensor that modules put out and read.
            node = version[0] if leaf.complete is None else self.flow.node(leaf.complete)
            seen[leaf.path] = Sight(self._prints[version], node, leaf.present is not None, axis)
