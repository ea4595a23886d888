"""Forward hooks as a context manager: hands over each chosen layer's activation the moment it exists.

Nothing is stored: the receiver gets the activation inside the hook, before any later in-place operation can
touch it, and must reduce it there and then. On every exit (return, exception, Ctrl-C) the hooks come off and
the network's training flags are what they were. Gradients are off inside; outputs are the network's own.
"""

from __future__ import annotations

import contextlib
import math
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import FeatureAxis, Grid, Layouts, decides, sequence_first_paths
from ketwork.networks.activations.outputs import Leaf, activations, told
from ketwork.networks.activations.selectors import Layers, Selection, select, tidy
from ketwork.records.checked import Malformed, check

POOLED = -1
"""The call index of a row in which all calls of a module are pooled."""

NEVER = "it never ran in the forward pass"
"""Why a module that other data may reach gave no row."""

Key = tuple[str, int]


@dataclass(frozen=True)
class Activation:
    """What one call of one layer put out: `values` (samples, positions, features).

    `present` (samples, positions) says which positions exist where the output itself knows (nested and
    packed tensors). `leaf` is where in the output the tensor stood, `axis` the axis its features were on.
    """

    key: Key
    kind: str
    values: Tensor
    positions: bool
    present: Tensor | None
    leaf: str
    axis: int


@dataclass
class Capture:
    """The live capture that `capture` yields; run the network with `forward`.

    `aliases` maps each module whose output was the very tensor of another row to that row; `skipped` maps
    modules that gave no row to the reason. `refused` holds the calls whose output could not be read as one of
    samples in some batch; what earlier batches seemed to say of them is to be thrown away.
    """

    model: nn.Module
    selection: Selection
    layouts: Layouts
    receive: Callable[[Activation], None]
    pool_calls: bool = False
    aliases: dict[Key, Key] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: set[Key] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    _running: bool = False
    _calls: Counter[str] = field(default_factory=Counter)
    _leaf: dict[Key, str] = field(default_factory=dict)
    _tensors: list[tuple[weakref.ref[Tensor], float, Key]] = field(default_factory=list)
    _waiting: dict[str, list[Activation]] = field(default_factory=dict)

    def forward(self, call: Callable[[nn.Module], Any], samples: int) -> Any:
        """Runs `call(model)` on a batch of that many samples and hands over what each layer put out."""
        self.layouts.begin(samples)
        self._calls.clear()
        self._tensors.clear()
        self._waiting.clear()
        self._running = True
        try:
            with torch.inference_mode(False), torch.no_grad(), eager(self.model):
                output = call(self.model)
        finally:
            self._running = False
        for path, calls in self._waiting.items():
            if (path, POOLED) not in self.refused:
                self.receive(_pooled(path, calls))
        self._waiting.clear()
        self._tensors.clear()
        return output

    def header(self) -> dict[str, Any]:
        """What the batches so far have shown of the network, as plain values."""
        return {
            "chosen": list(self.selection.chosen),
            "aliases": [[list(alias), list(row)] for alias, row in self.aliases.items()],
            "skipped": dict(self.skipped),
            "refused": [list(key) for key in sorted(self.refused)],
            "ran": sorted(self.ran),
            "leaves": [[list(key), leaf] for key, leaf in self._leaf.items()],
        }

    def restore(self, header: dict[str, Any]) -> None:
        """Takes over what `header` described."""
        check(header, _HEADER, "capture")
        self.aliases = {as_key(alias): as_key(row) for alias, row in map(_pair, header["aliases"])}
        self.skipped = dict(header["skipped"])
        self.refused = {as_key(key) for key in header["refused"]}
        self.ran = set(header["ran"])
        self._leaf = {as_key(key): str(leaf) for key, leaf in map(_pair, header["leaves"])}

    def _hook(self, path: str, module: nn.Module, inputs: Any, output: Any, chosen: bool) -> None:
        if not self._running:
            return  # someone else's forward pass: another capture holds the same module
        leaves = list(activations(output))
        if not leaves:
            if chosen:
                self._skip(path, told(output))
            return
        given = [x for x in inputs if isinstance(x, Tensor) and not x.is_nested]
        self.layouts.observe(path, module, leaves[0].tensor, given)
        if not chosen:
            return
        key = (path, POOLED if self.pool_calls else self._calls[path])
        self._calls[path] += 1
        self.ran.add(path)
        if key in self.refused:
            return
        reasons: list[str] = []
        for leaf in leaves:
            if self._leaf.get(key, leaf.path) != leaf.path:
                continue  # another batch was read elsewhere in the output
            row = self._known(leaf)
            if row is not None:
                self.aliases.setdefault(key, row)
                return
            grid = self.layouts.grid(path, module, leaf.tensor, given, batch_first=leaf.present is not None)
            if isinstance(grid, Grid):
                self._take(key, module, leaf, grid)
                return
            reasons.append(grid)
        self.refused.add(key)
        self._skip(path, reasons[0] if reasons else "its output changes its form from batch to batch")

    def _known(self, leaf: Leaf) -> Key | None:
        """The row that this very tensor already is, unless it was changed in place since."""
        for known, version, row in self._tensors:
            if known() is leaf.tensor and version == _version(leaf.tensor):
                return row
        return None

    def _take(self, key: Key, module: nn.Module, leaf: Leaf, grid: Grid) -> None:
        self._leaf[key] = leaf.path
        self._tensors.append((weakref.ref(leaf.tensor), _version(leaf.tensor), key))
        activation = _activation(key, type(module).__name__, grid, leaf.path, leaf.present)
        if self.pool_calls:
            # Calls pool sample by sample, so they wait (copied: the network may overwrite them) for the last.
            values = activation.values.clone()
            self._waiting.setdefault(key[0], []).append(
                Activation(key, activation.kind, values, grid.positions, leaf.present, leaf.path, grid.axis)
            )
        else:
            self.receive(activation)

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.setdefault(path, reason)


_HEADER = {
    "chosen": [str],
    "aliases": [list],
    "skipped": {str: str},
    "refused": [list],
    "ran": [str],
    "leaves": [list],
}


def as_key(told: Any) -> Key:
    """The key of a row that plain data describe: a path and a call."""
    path, call = _pair(told)
    check([path], [str], "path")
    check([call], [int], "call")
    return path, call


def _pair(told: Any) -> tuple[Any, Any]:
    check(told, list, "a pair")
    if len(told) != 2:
        raise Malformed(f"a pair cannot have {len(told)} parts")
    return told[0], told[1]


@contextlib.contextmanager
def capture(
    model: nn.Module,
    layers: Layers = None,
    *,
    receive: Callable[[Activation], None],
    calls: str = "separate",
    feature_axis: FeatureAxis = None,
) -> Iterator[Capture]:
    """A live capture of a network's layers; leaves the network exactly as it was.

    Args:
        model: any `nn.Module`; wrappers of `torch.compile` and of data-parallel training are looked through.
        layers: which modules, see `ketwork.networks.activations.selectors.select`.
        receive: called with each `Activation` inside the hook; it must not keep the tensor.
        calls: `"separate"` gives each call of a module its own row (path, call index), `"pooled"` one row.
        feature_axis: overrides the feature axis: an axis for all layers, a mapping from layer names to axes,
            or a callable (name, module, output) -> axis.

    Raises:
        TypeError: not an `nn.Module`, or TorchScript, which refuses hooks.
        SelectorError: a selector matches nothing.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> shapes = {}
    >>> def note(activation):
    ...     shapes[activation.key] = tuple(activation.values.shape)
    >>> with capture(net, receive=note) as live:
    ...     _ = live.forward(lambda model: model(torch.ones(5, 4)), samples=5)
    >>> shapes
    {('0', 0): (5, 1, 3), ('1', 0): (5, 1, 3)}
    """
    if calls not in ("separate", "pooled"):
        raise ValueError(f"Argument `calls` must be 'separate' or 'pooled', but is {calls!r}.")
    model = unwrapped(model)
    selection = select(model, layers)
    layouts = Layouts(feature_axis, sequence_first_paths(model, tidy))
    live = Capture(model, selection, layouts, receive, calls == "pooled")
    live.skipped.update(selection.skipped)
    flags = {module: module.training for module in model.modules()}
    with contextlib.ExitStack() as stack:
        for module, training in flags.items():
            stack.callback(setattr, module, "training", training)
        for path, module in model.named_modules():
            name = tidy(path)
            chosen = name in selection.chosen
            if "_orig_mod" in module._modules:
                continue  # the wrapper of a compiled part, which passes on what the module inside put out
            if isinstance(module, torch.jit.ScriptModule):
                if chosen:
                    live.skipped[name] = "TorchScript refuses hooks"
                continue
            if not (chosen or decides(module)):
                continue
            handle = module.register_forward_hook(_bound(live, name, chosen), with_kwargs=True)
            stack.callback(handle.remove)
        model.eval()
        yield live
    for path in selection.chosen:
        if path not in live.ran:
            live.skipped.setdefault(path, NEVER)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile` and data-parallel wrappers.

    Raises:
        TypeError: not an `nn.Module`, a TorchScript one, or one whose parameters are sharded over processes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}.")
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if "_orig_mod" in model._modules:
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, wrappers):
            model = model.module
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "Argument `model` is a TorchScript module, which refuses forward hooks. "
            "Pass the Python module that it was scripted or traced from."
        )
    if _sharded(model):
        raise TypeError(
            "Argument `model` is sharded over processes (FSDP or tensor parallelism): no process has a whole layer, "
            "and every forward pass needs all processes at once, so that one with more data than another would wait "
            "for ever. Load the weights into the network before it is sharded; "
            "`torch.distributed.checkpoint.state_dict.get_model_state_dict` gathers them with `full_state_dict=True`."
        )
    return model


def _sharded(model: nn.Module) -> bool:
    """Whether parts of the network's parameters are elsewhere; asked of what is loaded, since loading it takes long."""
    tensor, fsdp = (sys.modules.get(f"torch.distributed.{name}") for name in ("tensor", "fsdp"))
    parts = tensor is not None and any(isinstance(p, tensor.DTensor) for p in model.parameters())
    return parts or (
        fsdp is not None and any(isinstance(m, fsdp.FullyShardedDataParallel) for m in model.modules())
    )


def _bound(live: Capture, path: str, chosen: bool) -> Callable[[nn.Module, Any, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        live._hook(path, module, (*inputs, *named.values()), output, chosen)

    return hook


def eager(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """A context in which no part of the network runs compiled.

    Compiled parts run past the hooks, so they run eagerly here: the same network, not compiled."""
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def _version(tensor: Tensor) -> float:
    # Inference tensors do not count what changes them: NaN takes each for new.
    return math.nan if tensor.is_inference() else tensor._version


def _activation(key: Key, kind: str, grid: Grid, leaf: str, present: Tensor | None) -> Activation:
    return Activation(key, kind, grid.values, grid.positions, present, leaf, grid.axis)


def _pooled(path: str, activations: list[Activation]) -> Activation:
    first = activations[0]
    widths = {activation.values.shape[-1] for activation in activations}
    if len(widths) > 1:
        raise ValueError(
            f"Layer {path!r} cannot pool its calls: they have {sorted(widths)} features. Use calls='separate'."
        )
    values = torch.cat([activation.values for activation in activations], dim=1)
    present = None
    if any(activation.present is not None for activation in activations):
        present = torch.cat(
            [
                activation.present
                if activation.present is not None
                else torch.ones(activation.values.shape[:2], dtype=torch.bool, device=values.device)
                for activation in activations
            ],
            dim=1,
        )
    positions = len(activations) > 1 or first.positions
    return Activation((path, POOLED), first.kind, values, positions, present, first.leaf, first.axis)
