"""`capture`: hands over each chosen layer's activation the moment it exists.

Nothing is stored: the receiver gets the activation inside the hook, before any later in-place operation can
touch it, and must reduce it there and then. On every exit (return, exception, Ctrl-C) the hooks come off and
the network's training flags are what they were. Gradients are off inside; outputs are the network's own.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import Axes, FeatureAxis, KnownAxes
from ketwork.networks.activations.buffers import kept_buffers
from ketwork.networks.activations.experiment import Trial
from ketwork.networks.activations.experts import goes_to
from ketwork.networks.activations.hooks import Call, Walker, walk
from ketwork.networks.activations.info import POOLED, Activation, Key, LayerInfo
from ketwork.networks.activations.layout import Grid
from ketwork.networks.activations.linear_range import LinearRanges
from ketwork.networks.activations.masks import PositionMask
from ketwork.networks.activations.neutrality import callers_precision, drawing, full_precision
from ketwork.networks.activations.outputs import Leaf, described, version_of
from ketwork.networks.activations.parallel import is_sharded
from ketwork.networks.activations.selectors import Layers, Selection, select
from ketwork.networks.activations.spots import kind_of
from ketwork.networks.activations.wrappers import eager, evaluating, unwrapped

NEVER = "it never ran in the forward pass"
"""Why a module that other data may reach gave no row."""

CALLS = ("separate", "pooled")


Steps = Callable[[tuple[Any, ...], dict[str, Any]], Sequence[PositionMask]]
"""The masks of one call of the network among several, from what it is called with."""


class RefusedError(ValueError):
    """What `receive` raises of an activation that it cannot take: the layer has no row then, for the reason given."""


@dataclass(frozen=True)
class Seen:
    """What the batches so far have shown of a network's layers, for a checkpoint."""

    chosen: list[str]
    aliases: list[tuple[Key, Key]]
    skipped: dict[str, str]
    refused: list[Key]
    ran: list[str]
    leaves: list[tuple[Key, str]]
    axes: KnownAxes


@dataclass
class Capture(Walker):
    """The live capture that `capture` yields; run the network with `forward`.

    `aliases` maps each module whose output was the very tensor of another row to that row; `skipped` maps
    modules that gave no row to the reason. `refused` holds the calls whose output could not be read as one of
    samples in some batch; what earlier batches seemed to say of them is to be thrown away.
    """

    selection: Selection = field(kw_only=True)
    receive: Callable[[Activation], None] = field(kw_only=True)
    pool_calls: bool = field(default=False, kw_only=True)
    aliases: dict[Key, Key] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: set[Key] = field(default_factory=set)
    _running: bool = False
    _masks: dict[str, PositionMask] = field(default_factory=dict)
    _trials: list[Trial] = field(default_factory=list)
    _entered: bool = False
    _steps: Steps | None = None
    _leaf: dict[Key, str] = field(default_factory=dict)
    _tensors: list[tuple[weakref.ref[Tensor], float, Key]] = field(default_factory=list)
    _waiting: dict[str, list[Activation]] = field(default_factory=dict)
    _held: list[Call] = field(default_factory=list)
    _spans: LinearRanges = field(default_factory=LinearRanges)

    def forward(
        self,
        call: Callable[[nn.Module], Any],
        samples: int,
        trial: Trial | None = None,
        masks: Sequence[PositionMask] = (),
        draws: int | None = None,
        steps: Steps | None = None,
    ) -> Any:
        """Runs `call(model)` on a batch of that many samples and hands over what each layer put out.

        `trial` is that batch with a way to run the network on others like it, for networks of which only parts are
        called. `masks` say which positions exist. `draws` seeds what the network draws at random. Where
        the network is called several times, `steps` gives the masks of each call.
        """
        self._steps = steps
        with full_precision():
            return self._forward(call, samples, trial, masks, draws)

    def _forward(
        self,
        call: Callable[[nn.Module], Any],
        samples: int,
        trial: Trial | None,
        masks: Sequence[PositionMask],
        draws: int | None,
    ) -> Any:
        self._tensors.clear()
        self._waiting.clear()
        self._held.clear()
        self._trials, self._entered = [] if trial is None else [trial], False
        self._masks = {mask.name: mask for mask in masks}
        with torch.inference_mode(False), torch.no_grad(), eager(self.model):
            self.begin(samples)
            self._running = True
            try:
                with callers_precision(), drawing(draws):
                    output = call(self.model)
            finally:
                self._running = False
            self._resolve()
        for path, calls in self._waiting.items():
            if (path, POOLED) not in self.refused:
                self._hand_over(_pooled(calls))
        self._waiting.clear()
        self._tensors.clear()
        self._trials = []
        return output

    def enter(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A call of the whole network begins: where nothing is known of its axes yet, it is the experiment."""
        if not self._running:
            return
        if self._steps is not None:
            self._masks = {mask.name: mask for mask in self._steps(inputs, named)}
        if self._entered:
            return
        self._entered = True
        self._trials = self.root_trials(inputs, named, self.samples, self._masks.values()) + self._trials
        self._prepare()

    def _prepare(self) -> None:
        """Finds the axes of the outputs on a first batch, where nothing is known of them yet."""
        if not self.axes.layouts and self._trials:
            self.explore(self._trials)

    @property
    def reading(self) -> bool:
        """Whether the network runs on a batch that is read, and not in an experiment."""
        return self._running and self._watching is None

    def listening(self, leaves: list[Leaf]) -> bool:
        """Only in `forward`: another capture may hold the same module."""
        return self._running

    def visit(self, call: Call) -> None:
        """Hands over the first leaf that has the form of samples, unless it is a tensor that is known already."""
        path = call.key[0]
        if not call.leaves:
            self._skip(path, described(call.output) if call.spot is None else call.spot.missing(call.output))
            return
        key = (path, POOLED) if self.pool_calls else call.key
        if key in self.refused or all(leaf.tensor.numel() == 0 for leaf in call.leaves):
            return
        self._prepare()  # where only parts of the network are called
        layouts = self.axes.of(call.key)
        reasons: list[str] = []
        order = list(layouts or ())
        for leaf in sorted(
            call.leaves, key=lambda leaf: order.index(leaf.path) if leaf.path in order else -1
        ):
            if self._leaf.get(key, leaf.path) != leaf.path:
                continue  # another batch was read elsewhere in the output
            row = self._known(leaf) if call.index is None else None
            if row is not None:
                self.aliases.setdefault(key, row)
                return
            if layouts is None or leaf.path not in layouts:
                continue
            layout = layouts[leaf.path]
            grid = layout if isinstance(layout, str) else layout.grid(leaf.tensor, self.samples)
            if isinstance(grid, Grid):
                self._take(key, call, leaf, grid)
                return
            reasons.append(grid)
        if layouts is None:
            # Held until an experiment on this batch has shown its axes; the network may overwrite it.
            leaves = [replace(leaf, tensor=leaf.tensor.clone()) for leaf in call.leaves]
            self._held.append(replace(call, leaves=leaves, output=None))
            return
        self.refuse(key, reasons[0] if reasons else "its output changes its form from batch to batch")

    def _resolve(self) -> None:
        """Finds the axes of outputs that no batch before had, and hands them over."""
        held, self._held = self._held, []
        if not held:
            return
        if self._trials:
            self.explore(self._trials, self.samples)
        for call in held:
            if self.axes.of(call.key) is None:
                self.refuse(call.key, "nothing says which axis of its output counts the samples")
            else:
                self.visit(call)

    @contextlib.contextmanager
    def receiving(self, receive: Callable[[Activation], None]) -> Iterator[None]:
        """A block inside which `receive` gets the activations."""
        before, self.receive = self.receive, receive
        try:
            yield
        finally:
            self.receive = before

    def refuse(self, key: Key, reason: str) -> None:
        """Lets a layer have no row, for a reason."""
        self.refused.add(key)
        self._skip(key[0], reason)

    def names(self, rows: Collection[Key]) -> dict[Key, tuple[Key, tuple[str, ...]]]:
        """What each row is called, and by which other names it can be found.

        Of the modules that returned one tensor (a block and the norm at its end) the row takes the name of the
        block, else of the outermost one around the module that computed it; the whole network comes last.
        """
        same: dict[Key, list[Key]] = {key: [key] for key in rows}
        for alias, row in self.aliases.items():
            if row in same and alias not in rows:
                same[row].append(alias)
        named = {}
        for row, keys in same.items():
            around = [key for key in keys if row[0] == key[0] or row[0].startswith(f"{key[0]}.")]
            blocks = [key for key in around if key[0] in self.selection.blocks]
            chosen = min(blocks or around, key=lambda key: len(key[0]))
            named[row] = (chosen, tuple(dict.fromkeys(key[0] for key in keys if key != chosen)))
        return named

    def reasons(self) -> dict[str, str]:
        """The modules without a row so far, each with its reason: `skipped`, and those that no batch has reached."""
        silent = (path for path in self.selection.chosen if path not in self.ran | self.skipped.keys())
        return self.skipped | dict.fromkeys(silent, NEVER)

    @property
    def notes(self) -> list[str]:
        """What experiments have shown that is out of the ordinary."""
        return self.axes.notes

    def seen(self) -> Seen:
        """What the batches so far have shown."""
        return Seen(
            list(self.selection.chosen),
            list(self.aliases.items()),
            dict(self.skipped),
            sorted(self.refused),
            sorted(self.ran),
            list(self._leaf.items()),
            self.axes.stored(),
        )

    def restore(self, seen: Seen) -> None:
        """Takes over what other batches have shown."""
        self.aliases, self.skipped = dict(seen.aliases), dict(seen.skipped)
        self.refused, self.ran, self._leaf = set(seen.refused), set(seen.ran), dict(seen.leaves)
        self.axes.restore(seen.axes)

    def _known(self, leaf: Leaf) -> Key | None:
        """The row that this very tensor already is, unless it was changed in place since."""
        for known, version, row in self._tensors:
            if known() is leaf.tensor and version == version_of(leaf.tensor):
                return row
        return None

    def _take(self, key: Key, call: Call, leaf: Leaf, grid: Grid) -> None:
        self._leaf[key] = leaf.path
        if call.index is None:
            self._tensors.append((weakref.ref(leaf.tensor), version_of(leaf.tensor), key))
        info = LayerInfo(*key, kind_of(call.module, call.spot), leaf.path, grid.layout, grid.positions)
        present, unfit = self._present(call.key, leaf, grid)
        if call.index is not None and call.spot is not None:
            share = grid.layout.grid(goes_to(call.index, call.spot.expert), self.samples)
            assert isinstance(share, Grid)
            mine = share.values[..., 0] > 0
            present, unfit = mine if present is None else mine & present, None
        complete = leaf.tensor is call.output and grid.layout.features == leaf.tensor.ndim - 1
        span = self._spans.of(call.key[0], call.module, leaf.tensor) if complete else None
        activation = Activation(info, grid.values, present, unfit, span)
        if self.pool_calls:
            # Calls pool sample by sample, so they wait (copied: the network may overwrite them) for the last.
            self._waiting.setdefault(key[0], []).append(replace(activation, values=grid.values.clone()))
        else:
            self._hand_over(activation)

    def _hand_over(self, activation: Activation) -> None:
        try:
            self.receive(activation)
        except RefusedError as error:
            self.refuse(activation.key, str(error))

    def _present(self, key: Key, leaf: Leaf, grid: Grid) -> tuple[Tensor | None, Tensor | None]:
        """The positions that exist, and a mask of the layer's that is of other positions."""
        if leaf.present is not None:
            return leaf.present, None
        name = self.axes.mask(key, self._masks) if grid.positions or self._steps is not None else None
        if name is None:
            return None, None
        mask = self._masks[name].present
        return (mask, None) if mask.shape == grid.values.shape[:2] else (None, mask)

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.setdefault(path, reason)


@contextlib.contextmanager
def capture(
    model: nn.Module,
    layers: Layers = None,
    *,
    receive: Callable[[Activation], None],
    calls: str = "separate",
    feature_axis: FeatureAxis = None,
    axes: Iterable[LayerInfo] | None = None,
) -> Iterator[Capture]:
    """A live capture of a network's layers; leaves the network exactly as it was.

    Args:
        model: any `nn.Module`; wrappers of `torch.compile` and of data-parallel training are looked through.
        layers: which modules, see `select`.
        receive: called with each `Activation` inside the hook; it must not keep the tensor.
        calls: `"separate"` gives each call of a module its own row (path, call index), `"pooled"` one row.
        feature_axis: overrides the feature axis: an axis for all layers, a mapping from layer names to axes,
            or a callable (name, module, output) -> axis.
        axes: layers whose axes are known, as a study of the network has them; no experiment is made for these.

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
    if calls not in CALLS:
        raise ValueError(f"Argument `calls` must be one of {CALLS}, but is {calls!r}.")
    model = unwrapped(model, sharded=True)
    selection = select(model, layers)
    if is_sharded(model):
        axes = None  # a process may have a part of what a study of the plain network saw
    known = Axes(feature_axis) if axes is None else Axes.from_layers(axes, feature_axis)
    live = Capture(model, axes=known, selection=selection, receive=receive, pool_calls=calls == "pooled")
    live.skipped.update(selection.skipped)
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(kept_buffers(model))
        stack.enter_context(
            walk(live, selection.chosen, lambda name: live._skip(name, "TorchScript refuses hooks"))
        )
        yield live
    live.skipped = live.reasons()


def _pooled(calls: list[Activation]) -> Activation:
    first = calls[0]
    widths = {call.values.shape[-1] for call in calls}
    if len(widths) > 1:
        raise ValueError(
            f"Layer {first.info.name!r} cannot pool its calls: they have {sorted(widths)} features. "
            "Use calls='separate'."
        )
    present = None
    if any(call.present is not None for call in calls):
        present = torch.cat(
            [
                call.present
                if call.present is not None
                else torch.ones(call.values.shape[:2], dtype=torch.bool, device=call.values.device)
                for call in calls
            ],
            dim=1,
        )
    info = replace(first.info, positions=len(calls) > 1 or first.info.positions)
    return Activation(info, torch.cat([call.values for call in calls], dim=1), present)
