"""`intervene`: replaces what layers put out by whatever a function makes of it.

The counterpart of `capture`, which only looks: outputs are read by the same hooks (the leaf of a tuple, dict or
ModelOutput, the axis of features, positions and samples), but gradients flow, and the network is called as usual.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import Axes, FeatureAxis, by_rules
from ketwork.networks.activations.experiment import Trial
from ketwork.networks.activations.hooks import Call, Walker, walk
from ketwork.networks.activations.info import Key, LayerInfo
from ketwork.networks.activations.layout import Grid, Layout
from ketwork.networks.activations.masks import KEY, PositionMask, masks_of
from ketwork.networks.activations.outputs import Leaf, described, replaced
from ketwork.networks.activations.repeats import Visits, in_backward
from ketwork.networks.activations.samples import count, count_second
from ketwork.networks.activations.wrappers import unwrapped

Change = Callable[["Site"], Tensor | None]


@dataclass(frozen=True)
class Site:
    """One call of one layer, in the middle of a forward pass: `values` (samples, positions, features).

    `present` (samples, positions) says which positions exist; None: all. `serial` counts calls; one that the backward
    pass makes again (`torch.utils.checkpoint`) has the number of the first.
    """

    key: Key
    values: Tensor
    positions: bool
    present: Tensor | None
    layout: Layout
    serial: int = 0
    again: bool = False


@dataclass
class Intervention(Walker):
    """The hooks at work; `change` gets each site and returns what the network continues with, or None to leave it."""

    change: Change = field(kw_only=True)
    masks: Sequence[PositionMask] = ()
    passes: int = 0
    _masks: dict[str, PositionMask] = field(default_factory=dict)
    _running: bool = False
    _second: bool = False  # samples are counted by the second axis of what the network is called with
    _trials: list[Trial] = field(default_factory=list)
    _visits: Visits = field(default_factory=Visits)
    _recording: bool = False  # gradients may flow

    @property
    def follows_backward(self) -> bool:
        """Yes: what is run again becomes what it became."""
        return True

    def enter(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A forward pass of the whole network begins; the first one is the experiment that shows its axes."""
        first = count((inputs, named), named.get(KEY))
        second = count_second((inputs, named), first)
        samples = second if self._second else first
        masks = () if samples is None else masks_of(named, None, 0, samples, None, None)
        self._trials = []
        if samples is not None:
            self._trials = self.root_trials(inputs, named, samples, masks)
            if not self.axes.layouts:
                # Nothing but the network says which axis of what it is called with counts the samples.
                others = [] if second is None or masks else self.root_trials(inputs, named, second, masks)
                right = self.explore([*self._trials, *others])
                if right in others:
                    self._second, self._trials, samples = True, others, second
        self._start(0 if samples is None else samples)
        self._masks = {mask.name: mask for mask in self.masks or masks}
        self._running, self._recording = True, torch.is_grad_enabled()
        self.passes += 1

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """It is over, or failed."""
        if self.mine:
            self._running = False

    def listening(self, leaves: list[Leaf]) -> bool:
        """Always; a module that was called by itself is a forward pass of its own."""
        if not self._running and not in_backward():
            self._recording = torch.is_grad_enabled()
            self._start(len(leaves[0].tensor) if leaves and leaves[0].tensor.ndim else 0)
        return True

    def visit(self, call: Call) -> Any:
        """The output that the network continues with."""
        path, reasons = call.key[0], []
        serial, again = 0, in_backward() and not self._running and bool(call.leaves)
        if again:
            first = self._visits.match(path, call.leaves[0].tensor)
            if first is None and threading.get_ident() != self._thread:
                return None  # another thread's
            again = first is not None
            if first is None:
                self._start(len(call.leaves[0].tensor))
                call = replace(call, key=(path, 0))
            else:
                call, serial = replace(call, key=first.key), first.serial
                self.samples, self._masks = first.samples, dict(first.masks)
        elif self._recording and call.leaves:
            serial = self._visits.add(call.key, call.leaves[0].tensor, self.samples, self._masks)
        layouts = self.axes.of(call.key)
        if layouts is None and self._running and self._trials:
            self.explore(self._trials, self.samples)  # the first batch did not reach it
            layouts = self.axes.of(call.key)
        for leaf in call.leaves:
            layout = (
                self._rule(call, leaf)
                if layouts is None
                else layouts.get(leaf.path, self.axes.shared.get(call.key, "it was not there before"))
            )
            grid = layout if isinstance(layout, str) else layout.grid(leaf.tensor, self.samples)
            if not isinstance(grid, Grid):
                reasons.append(grid)
                continue
            assert isinstance(layout, Layout)
            site = Site(
                call.key,
                grid.values,
                grid.positions,
                self._present(call.key, leaf, grid),
                layout,
                serial,
                again,
            )
            values = self.change(site)
            if values is None:
                return None
            return replaced(call.output, leaf, grid.restored(values, leaf.tensor))
        missing = described if call.spot is None else call.spot.missing
        reason = reasons[0] if reasons else missing(call.output)
        raise ValueError(f"Layer {path!r} cannot be collapsed: {reason}.")

    def _rule(self, call: Call, leaf: Leaf) -> Layout | str:
        """The layout of an output that no experiment has shown, as of a module that is called by itself."""
        axis = self.axes.given(call.key[0], call.module, leaf.tensor)
        return by_rules(call.module, leaf.tensor, axis)

    def _start(self, samples: int) -> None:
        self.begin(samples)
        self._masks = {mask.name: mask for mask in self.masks}

    def _present(self, key: Key, leaf: Leaf, grid: Grid) -> Tensor | None:
        if leaf.present is not None:
            return leaf.present
        name = self.axes.mask(key, self._masks) if grid.positions else None
        if name is None or self._masks[name].present.shape != grid.values.shape[:2]:
            return None
        return self._masks[name].present


@contextlib.contextmanager
def intervene(
    model: nn.Module,
    chosen: Collection[str],
    change: Change,
    feature_axis: FeatureAxis = None,
    axes: Iterable[LayerInfo] | None = None,
) -> Iterator[Intervention]:
    """Lets `change` replace what the modules at these paths put out; all hooks come off on every exit.

    `axes` are layers whose axes are known; the others' are found by running the first batch again.
    """
    network = unwrapped(model)
    known = Axes(feature_axis) if axes is None else Axes.from_layers(axes, feature_axis)
    live = Intervention(network, axes=known, change=change)
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            # Compiled code runs past hooks, whoever holds the compiled wrapper.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(walk(live, chosen, _refuse))
        stack.callback(network.register_forward_hook(live.leave, always_call=True).remove)
        yield live


def _refuse(name: str) -> None:
    raise TypeError(f"Layer {name!r} is a TorchScript module, which refuses hooks.")
