"""Forward hooks that replace what layers put out, by whatever a function makes of it.

The counterpart of `capture`, which only looks: outputs are read in the same way (the leaf of a tuple, dict or
ModelOutput, the axis of features, positions and samples), but gradients flow, and the network is called as usual.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import (
    FeatureAxis,
    Grid,
    Layouts,
    as_mask,
    decides,
    sequence_first_paths,
)
from ketwork.networks.activations.captures import Key, unwrapped
from ketwork.networks.activations.outputs import Leaf, activations, replaced, tensors, told
from ketwork.networks.activations.selectors import tidy

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
class Intervention:
    """The hooks at work; `change` gets each site and returns what the network goes on from, or None to leave it."""

    model: nn.Module
    change: Change
    layouts: Layouts
    mask: Tensor | None = None
    ran: set[str] = field(default_factory=set)
    passes: int = 0
    _given_mask: Tensor | None = None
    _running: bool = False
    _calls: Counter[str] = field(default_factory=Counter)

    def begin(self, module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        """A forward pass of the whole network begins, with as many samples as its first tensor has."""
        first = next((x for x in tensors((inputs, named)) if x.ndim), None)
        self._start(0 if first is None else len(first))
        self._running = True
        self.passes += 1
        mask = named.get("attention_mask")
        fits = isinstance(mask, Tensor) and mask.ndim == 2 and len(mask) == self.layouts.samples
        self._given_mask = as_mask(mask, self.layouts.samples) if fits else None  # type: ignore[arg-type]

    def end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """It is over, or failed."""
        self._running = False

    def pass_on(self, path: str, module: nn.Module, given: list[Tensor], output: Any, chosen: bool) -> Any:
        """The output that the network goes on from."""
        leaves = list(activations(output))
        if not self._running:  # the module was called by itself
            self._start(len(leaves[0].tensor) if leaves and leaves[0].tensor.ndim else 0)
        if leaves:
            self.layouts.observe(path, module, leaves[0].tensor, given)
        if not chosen:
            return None
        self.ran.add(path)
        key = (path, self._calls[path])
        self._calls[path] += 1
        reasons = []
        for leaf in leaves:
            grid = self.layouts.grid(path, module, leaf.tensor, given, batch_first=leaf.present is not None)
            if not isinstance(grid, Grid):
                reasons.append(grid)
                continue
            values = self.change(Site(key, grid.values, grid.positions, self._present(leaf, grid), grid.axis))
            if values is None:
                return None
            tensor = grid.restored(values, leaf.tensor)
            self.layouts.observe(path, module, tensor, given)
            return replaced(output, leaf, tensor)
        raise ValueError(f"Layer {path!r} cannot be collapsed: {reasons[0] if reasons else told(output)}.")

    def _start(self, samples: int) -> None:
        self.layouts.begin(samples)
        self._calls.clear()
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
    live = Intervention(network, change, Layouts(feature_axis, sequence_first_paths(network, tidy)))
    with contextlib.ExitStack() as stack:
        if (
            "torch._dynamo" in sys.modules
        ):  # compiled code runs past hooks, whoever holds the compiled wrapper
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        begin = network.register_forward_pre_hook(live.begin, with_kwargs=True)
        stack.callback(begin.remove)
        for path, module in network.named_modules():
            name = tidy(path)
            if "_orig_mod" in module._modules:
                continue  # the wrapper of a compiled part, which passes on what the module inside put out
            if name in chosen and isinstance(module, torch.jit.ScriptModule):
                raise TypeError(f"Layer {name!r} is a TorchScript module, which refuses hooks.")
            if name in chosen or (decides(module) and not isinstance(module, torch.jit.ScriptModule)):
                hook = module.register_forward_hook(_hook(live, name, name in chosen), with_kwargs=True)
                stack.callback(hook.remove)
        end = network.register_forward_hook(live.end, always_call=True)
        stack.callback(end.remove)
        yield live


def _hook(live: Intervention, path: str, chosen: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: Any, named: dict[str, Any], output: Any) -> Any:
        given = [x for x in (*inputs, *named.values()) if isinstance(x, Tensor) and not x.is_nested]
        return live.pass_on(path, module, given, output, chosen)

    return hook
