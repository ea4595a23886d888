"""`intervene`: replaces what layers put out by whatever a function makes of it.

The counterpart of `capture`, which only looks: outputs are read by the same hooks (the leaf of a tuple, dict or
ModelOutput, the axis of features, positions and samples), but gradients flow, and the network is called as usual.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import FeatureAxis, Grid, Layouts, as_mask, sequence_first_paths
from ketwork.networks.activations.hooks import Call, Walker, walk
from ketwork.networks.activations.info import Key
from ketwork.networks.activations.outputs import Leaf, described, replaced, tensors
from ketwork.networks.activations.selectors import tidy
from ketwork.networks.activations.wrappers import unwrapped

Change = Callable[["Site"], Tensor | None]


@dataclass(frozen=True)
class Site:
    """One call of one layer, in the middle of a forward pass: `values` (samples, positions, features).

    `present` (samples, positions) says which positions exist; None: all.
    """

    key: Key
    values: Tensor
    positions: bool
    present: Tensor | None
    axis: int


@dataclass
class Intervention(Walker):
    """The hooks at work; `change` gets each site and returns what the network continues with, or None to leave it."""

    change: Change = field(kw_only=True)
    mask: Tensor | None = None
    passes: int = 0
    _given_mask: Tensor | None = None
    _running: bool = False

    def enter(self, module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        """A forward pass of the whole network begins, with as many samples as its first tensor has."""
        first = next((x for x in tensors((inputs, named)) if x.ndim), None)
        self._start(0 if first is None else len(first))
        self._running = True
        self.passes += 1
        mask = named.get("attention_mask")
        fits = isinstance(mask, Tensor) and mask.ndim == 2 and len(mask) == self.layouts.samples
        self._given_mask = as_mask(mask, self.layouts.samples) if fits else None  # type: ignore[arg-type]

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """It is over, or failed."""
        self._running = False

    def listening(self, leaves: list[Leaf]) -> bool:
        """Always; a module that was called by itself is a forward pass of its own."""
        if not self._running:
            self._start(len(leaves[0].tensor) if leaves and leaves[0].tensor.ndim else 0)
        return True

    def visit(self, call: Call) -> Any:
        """The output that the network continues with."""
        path, reasons = call.key[0], []
        for leaf in call.leaves:
            grid = self.read(call, leaf)
            if not isinstance(grid, Grid):
                reasons.append(grid)
                continue
            site = Site(call.key, grid.values, grid.positions, self._present(leaf, grid), grid.axis)
            values = self.change(site)
            if values is None:
                return None
            tensor = grid.restored(values, leaf.tensor)
            self.layouts.observe(path, call.module, tensor, call.given)
            return replaced(call.output, leaf, tensor)
        reason = reasons[0] if reasons else described(call.output)
        raise ValueError(f"Layer {path!r} cannot be collapsed: {reason}.")

    def _start(self, samples: int) -> None:
        self.begin(samples)
        self._given_mask = None

    def _present(self, leaf: Leaf, grid: Grid) -> Tensor | None:
        if leaf.present is not None:
            return leaf.present
        mask = self.mask if self.mask is not None else self._given_mask
        fits = mask is not None and grid.positions and mask.shape == grid.values.shape[:2]
        return mask if fits else None


@contextlib.contextmanager
def intervene(
    model: nn.Module, chosen: Collection[str], change: Change, feature_axis: FeatureAxis = None
) -> Iterator[Intervention]:
    """Lets `change` replace what the modules at these paths put out; all hooks come off on every exit."""
    network = unwrapped(model)
    live = Intervention(network, Layouts(feature_axis, sequence_first_paths(network, tidy)), change=change)
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            # Compiled code runs past hooks, whoever holds the compiled wrapper.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.callback(network.register_forward_pre_hook(live.enter, with_kwargs=True).remove)
        stack.enter_context(walk(live, chosen, _refuse))
        stack.callback(network.register_forward_hook(live.leave, always_call=True).remove)
        yield live


def _refuse(name: str) -> None:
    raise TypeError(f"Layer {name!r} is a TorchScript module, which refuses hooks.")
