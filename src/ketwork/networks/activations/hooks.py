"""The one way in which modules' outputs are seen: forward hooks that read each as samples × positions × features.

`walk` puts the hooks on and takes them off on every exit. For each call of each chosen module a `Walker` reads the
output: which leaf of a tuple, dict or ModelOutput, which axes of it, as experiments on the first batch have shown. What
becomes of that is its `visit`'s: `capture` hands it on, `intervene` replaces it.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import Axes
from ketwork.networks.activations.experiment import FEW, Experiment, Trial
from ketwork.networks.activations.experts import routed
from ketwork.networks.activations.feature_axis import decides
from ketwork.networks.activations.findings import Findings
from ketwork.networks.activations.info import Key
from ketwork.networks.activations.masks import PositionMask, towers
from ketwork.networks.activations.neutrality import full_precision
from ketwork.networks.activations.observation import Observation
from ketwork.networks.activations.outputs import Leaf, activations, is_spread
from ketwork.networks.activations.parallel import is_sharded, leave_parts_out
from ketwork.networks.activations.repeats import in_backward
from ketwork.networks.activations.samples import Path, Second, carriers, with_own_caches
from ketwork.networks.activations.selectors import WRAPPED, places_of, tidy
from ketwork.networks.activations.spots import Spot, as_inputs, as_tree
from ketwork.networks.activations.wrappers import evaluating


@dataclass(frozen=True)
class Call:
    """One call of one chosen module, and what it put out; `leaves` are its activations, in order.

    Of a `spot`, another place than its output, the key names that, `output` is what stands on that side and `leaves`
    are those of the place. Of an expert, `index` says which experts each position goes to.
    """

    key: Key
    module: nn.Module
    output: Any
    leaves: list[Leaf]
    spot: Spot | None = None
    index: Tensor | None = None


@dataclass
class Walker(ABC):
    """The state of the hooks during a forward pass, and what experiments have shown of the network's outputs."""

    model: nn.Module
    axes: Axes = field(kw_only=True)
    samples: int = 0
    ran: set[str] = field(default_factory=set)
    _calls: Counter[str] = field(default_factory=Counter)
    _watching: Observation | None = None
    _seen: list[Observation] = field(default_factory=list)
    _thread: int = field(default_factory=threading.get_ident)

    @property
    def follows_backward(self) -> bool:
        """Whether calls that a backward pass makes again are read, on whichever thread it runs."""
        return False

    @abstractmethod
    def enter(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A call of the whole network begins."""

    @abstractmethod
    def listening(self, leaves: list[Leaf]) -> bool:
        """Whether this forward pass is one to read; called for each chosen module that runs."""

    @abstractmethod
    def visit(self, call: Call) -> Any:
        """What the module's output becomes, None to leave it."""

    def begin(self, samples: int) -> None:
        """A forward pass over so many samples begins."""
        self.samples = samples
        self._calls.clear()

    def uses(self, trial: Trial, entry: Path) -> bool:
        """Whether what the network puts out depends on an entry of a batch."""
        with evaluating(self.model), full_precision():
            return Experiment(self.model, self._watched, self.axes.given).uses(trial, entry)

    def explore(self, trials: Iterable[Trial], few: int = FEW) -> Trial | None:
        """Finds the axes of the outputs on a batch, by running the network on its samples in other orders.

        Of several ways to see the batch's samples, that is right which settles most layers. It is returned.
        """
        best, passes, right = Findings(), 0, None
        with evaluating(self.model), full_precision():
            for trial in trials:
                self._seen.clear()
                findings = Experiment(self.model, self._watched, self.axes.given)(trial, few)
                if is_sharded(self.model):
                    leave_parts_out(self.model, max(self._seen, key=lambda each: len(each.outputs)), findings)
                passes += findings.passes
                if not best.layouts or findings.share > best.share:
                    best, right = findings, trial
                if best.share >= 0.5:
                    break
        self._seen.clear()
        self.axes.take(replace(best, passes=passes))
        return right

    def root_trials(
        self, inputs: tuple[Any, ...], named: dict[str, Any], samples: int, masks: Collection[PositionMask]
    ) -> list[Trial]:
        """What the whole network is called with as a batch for experiments, in each way to see its samples."""
        trials: list[Trial] = []
        for second in get_args(Second):
            axes = carriers((inputs, named), samples, second)
            if not axes or axes in [trial.axes for trial in trials]:
                continue
            carried = {path[1]: named[path[1]] for path in axes if path[0] == 1}
            groups = {name: {(1, key) for key in keys} for name, keys in towers(masks, carried).items()}
            unnamed = {path for path in axes if path[0] == 0}
            if groups and unnamed:
                groups[None] = groups.get(None, set()) | unnamed
            if len(masks) > 1 and not groups:
                names = ", ".join(f"`{mask.name}`" for mask in masks)
                self.axes.note(
                    f"Nothing says which of the batch's entries each of its masks {names} belongs to, so none is used. "
                    "Name one with `mask=`, or name entries alike (`decoder_input_ids`, `decoder_attention_mask`)."
                )
            trials.append(Trial((inputs, named), samples, _call, axes, groups))
        return trials

    def output(self, path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any, chosen: bool) -> Any:
        """What the network continues with, None for what the module put out: the hook of a module."""
        if threading.get_ident() != self._thread and not (self.follows_backward and in_backward()):
            return None  # another thread runs the same network
        if self._watching is not None:
            given = [
                x
                for x in inputs
                if isinstance(x, Tensor)
                and not x.is_nested
                and x.layout == torch.strided
                and not is_spread(x)
            ]
            with full_precision():
                self._watching.see(path, module, given, output, chosen)
            return None
        return self._visited(path, module, output, list(activations(output))) if chosen else None

    def at(self, spot: Spot, module: nn.Module, tree: Any) -> Any:
        """What stands at a place of a module's input or output from now on, None for what did: the hook of a place."""
        if threading.get_ident() != self._thread and not (self.follows_backward and in_backward()):
            return None
        leaves = spot.leaves(tree)
        if self._watching is not None:
            with full_precision():
                self._watching.look(spot.name, module, leaves, chosen=True)
            return None
        return self._visited(spot.name, module, tree, leaves, spot)

    def routed(self, spots: list[Spot], module: nn.Module, tree: Any) -> None:
        """Reads what experts of a module are given: the hook of these."""
        if threading.get_ident() != self._thread and not (self.follows_backward and in_backward()):
            return
        given = routed(tree)
        leaves, index = ([], None) if given is None else ([given[0]], given[1])
        for spot in spots:
            if self._watching is not None:
                with full_precision():
                    self._watching.look(spot.name, module, leaves, chosen=True)
            else:
                self._visited(spot.name, module, tree, leaves, spot, index)

    def _visited(
        self,
        path: str,
        module: nn.Module,
        output: Any,
        leaves: list[Leaf],
        spot: Spot | None = None,
        index: Tensor | None = None,
    ) -> Any:
        if not self.listening(leaves):
            return None
        self.ran.add(path)
        key = (path, self._calls[path])
        self._calls[path] += 1
        with full_precision():
            return self.visit(Call(key, module, output, leaves, spot, index))

    @property
    def mine(self) -> bool:
        """Whether a call of the network that begins now is to be read.

        Not another thread's, nor an experiment's, nor one that a backward pass makes again.
        """
        return threading.get_ident() == self._thread and self._watching is None and not in_backward()

    @contextlib.contextmanager
    def _watched(self, observation: Observation) -> Iterator[None]:
        self._watching = observation
        self._seen.append(observation)
        try:
            yield
        finally:
            self._watching = None


@contextlib.contextmanager
def walk(walker: Walker, chosen: Collection[str], refuse: Callable[[str], None]) -> Iterator[None]:
    """Puts the walker's hooks on the chosen modules, and on those that show how their neighbours' outputs lie.

    `refuse` gets the name of a chosen module that takes no hooks (TorchScript).
    """

    def enter(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if walker.mine:
            walker.enter(inputs, named)

    with contextlib.ExitStack() as stack:
        stack.callback(walker.model.register_forward_pre_hook(enter, with_kwargs=True).remove)
        places = places_of(walker.model, chosen)
        for path, module in walker.model.named_modules():
            name = tidy(path)
            if any(part in module._modules for part in WRAPPED):
                continue  # a wrapper, which passes on what the module inside put out
            if isinstance(module, torch.jit.ScriptModule):
                for row in [name] * (name in chosen) + [spot.name for spot in places.get(name, ())]:
                    refuse(row)
                continue
            if name in chosen or decides(module):
                hook = _hook(walker, name, name in chosen)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            spots = places.get(name, [])
            experts = [spot for spot in spots if spot.side == "expert"]
            if experts:
                gate = _routed(walker, experts)
                stack.callback(module.register_forward_pre_hook(gate, with_kwargs=True).remove)
            for spot in (each for each in spots if each.side != "expert"):
                if spot.side == "input":
                    before = _before(walker, spot)
                    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                else:
                    stack.callback(module.register_forward_hook(_after(walker, spot)).remove)
        yield


def _call(model: nn.Module, content: Any) -> Any:
    inputs, named = with_own_caches(content)
    return model(*inputs, **named)


def _before(walker: Walker, spot: Spot) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        tree = walker.at(spot, module, as_tree(inputs, named))
        return None if tree is None else as_inputs(tree)

    return hook


def _routed(walker: Walker, spots: list[Spot]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        walker.routed(spots, module, as_tree(inputs, named))

    return hook


def _after(walker: Walker, spot: Spot) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return walker.at(spot, module, output)

    return hook


def _hook(walker: Walker, path: str, chosen: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        return walker.output(path, module, (*inputs, *named.values()), output, chosen)

    return hook
