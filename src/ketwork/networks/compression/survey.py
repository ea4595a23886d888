"""One survey of the calibration data: each layer's moments, and how much the predictions depend on its output.

For each sample one forward pass, and one backward pass for each of three draws. g is the gradient at the layer's
output y of what `Predictions.draw` draws; G = Σ g gᵀ over positions, per prediction and draw. Then
½ E δyᵀ G δy is what a change δy of the layer's output costs, in nats a prediction, to lowest order: the Gauss–Newton
form of the KL (Amari 1998, Neural Comput. 10, 251; Martens 2020, JMLR 21, 146).
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from ketwork.networks.activations import Batch, full_precision
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.covariance import Scatter, added
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.scratch import Scratch
from ketwork.networks.measures import TEMPERATURES

WIDEST = 4096  # features; of a wider output only the diagonal of G is kept
WIDEST_INPUT = (
    4608  # features: of a wider input no k × k moments are kept (their decomposition would take minutes)
)

_PART = 2**24  # bytes of unfolded patches at a time, at most
_PRODUCTS = (
    1e11  # multiply-adds that one layer's moments of patches may take: beyond, some positions stand for all
)
_UNSEEN = 0.2  # of the weight of an embedding's moments that all its entries share evenly
_TOGETHER = 4096  # rows of layers that are called at each step of a sequence, summed at once
_LEAST_ROWS = 6  # patches for each of their entries that are taken nevertheless


@dataclass
class Surveyed:
    """What was seen of one layer: its moments on the smaller side, G, and how it was called.

    `side` says whose moments `scatter` holds, "inputs" or "outputs"; `channels` are those of a convolution's input
    channels where its inputs' are not kept. `fisher` is Σ g gᵀ (m, m) of all draws, or its diagonal (m,), None where
    no gradient
    could be taken. `rows` is the number of positions at which it put something out, `shape` that of its first input.
    """

    side: str
    scatter: Scatter | None = None
    fisher: Tensor | None = None
    rows: int = 0
    shape: tuple[int, ...] = ()
    channels: Scatter | None = None
    by_channel: bool = False


@dataclass
class Survey:
    """All layers' records by path, over so many samples and predictions.

    `order` holds the layers that ran once in every batch, in one order that was the same for all; others are
    not in it. `differentiable` says whether gradients could be taken.
    """

    layers: dict[str, Surveyed]
    samples: int = 0
    predictions: int = 0
    differentiable: bool = True
    order: list[str] = field(default_factory=list)

    def fisher(self, path: str) -> Tensor | None:
        """G of a layer, per prediction."""
        result = self.layers[path].fisher
        return None if result is None else result / (self.predictions * len(TEMPERATURES))

    def positions(self, path: str) -> float:
        """Rows a sample."""
        return self.layers[path].rows / self.samples

    def add(self, other: Survey, start: int | None = None) -> None:
        """Adds the survey of other samples; where they stand does not matter.

        Raises:
            ValueError: it is of other layers.
        """
        if self.layers.keys() != other.layers.keys():
            raise ValueError("The parts have different layers to compress.")
        for path, seen in self.layers.items():
            more = other.layers[path]
            if more.scatter is not None:
                seen.scatter = added(seen.scatter, more.scatter)
            if more.channels is not None:
                seen.channels = added(seen.channels, more.channels)
            if seen.fisher is not None and more.fisher is not None:
                seen.fisher = seen.fisher + more.fisher
            else:
                seen.fisher = more.fisher if seen.fisher is None else seen.fisher
            seen.rows += more.rows
            seen.shape = seen.shape or more.shape
        self.samples += other.samples
        self.predictions += other.predictions
        self.differentiable &= other.differentiable
        self.order = _common([self.order, other.order])


def run_survey(
    model: nn.Module,
    layers: Sequence[WeightLayer],
    calibration: Calibration,
    generator: torch.Generator,
    inputs_of: Collection[str] = (),
    memory: int = 2**32,
    scratch: Scratch | None = None,
) -> Survey:
    """The survey of the batches to fit on, in one forward and three backward passes.

    Layers named in `inputs_of` have the moments of their inputs taken, whichever side is smaller. Of convolutions
    with many
    positions some stand for all, drawn anew for each batch. `memory` bounds the bytes of patches unfolded at a time;
    `scratch` keeps the sums.

    Raises:
        ValueError: a layer put out NaN or infinite values; it and the batch are named.
    """
    result = Survey({layer.path: _wanted(layer, layer.path in inputs_of) for layer in layers})
    orders: list[list[str]] = []
    calibration.held = []
    samples = sum(batch.size for batch in calibration.fit)
    live = _Live(result, samples, min(_PART, max(memory // 8, 2**16)), scratch or Scratch(memory))
    with contextlib.ExitStack() as stack:
        for layer in layers:
            handle = layer.module.register_forward_hook(live.hook(layer))
            stack.callback(handle.remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(without_checkpoints())
        for number, batch in enumerate(calibration.fit):
            live.begin(batch, number)
            with torch.enable_grad():
                rows = calibration.rows(model, batch)
                if not all(bool(torch.isfinite(part).all()) for part in rows):
                    raise ValueError(
                        f"Argument `data` must give finite predictions, but batch {number} gives NaN or infinite ones."
                    )
                if any(part.requires_grad for part in rows):
                    live.backward = True
                    for i, temperature in enumerate(TEMPERATURES):
                        drawn = calibration.predictions.draw(rows, temperature, generator)
                        drawn.backward(retain_graph=i + 1 < len(TEMPERATURES))
                        calibration.advance(batch.size)
                    live.backward = False
                else:
                    result.differentiable = False
            live.end()
            calibration.held.append(live.held)
            result.samples += batch.size
            result.predictions += max(len(part) for part in rows)
            orders.append(live.order)
            del rows
    for layer in layers:
        if layer.looks_up:
            _add_unseen(layer, result.layers[layer.path])
    result.order = _common(orders)
    return result


def _add_unseen(layer: WeightLayer, seen: Surveyed) -> None:
    """Counts each entry of an embedding as seen a little, so that those that the data lack are not lost."""
    if seen.scatter is not None and seen.scatter.n:
        every = Scatter.of(layer.weight().T)
        seen.scatter = _weighted(seen.scatter, 1 - _UNSEEN)
        seen.scatter += _weighted(every, _UNSEEN * seen.rows / every.n)


def _weighted(scatter: Scatter, weight: float) -> Scatter:
    return Scatter(max(1, round(weight * scatter.n)), scatter.left, scatter.right, weight * scatter.total)


def _wanted(layer: WeightLayer, reader: bool) -> Surveyed:
    """Which moments are taken of a layer."""
    area = prod(layer.kernel)
    if layer.looks_up:
        return Surveyed("outputs")
    narrow = layer.known and layer.k <= WIDEST_INPUT
    if (narrow and (layer.k < layer.m or reader or area > 1)) or layer.m > WIDEST:
        return Surveyed("inputs")
    return Surveyed("outputs", by_channel=area > 1)


@contextlib.contextmanager
def without_checkpoints() -> Iterator[None]:
    """Runs what reentrant checkpoints of `torch.utils.checkpoint` hold as ordinary code, so that hooks see
    gradients."""
    place: Any = torch.utils.checkpoint
    original = place.CheckpointFunction
    place.CheckpointFunction = _Plain
    try:
        yield
    finally:
        place.CheckpointFunction = original


class _Plain:
    """In the place of `CheckpointFunction`: calls the function."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *inputs: Any) -> Any:
        """What the function gives."""
        return function(*inputs)


class _Live:
    """The hooks' state during one batch."""

    def __init__(self, result: Survey, samples: int, part: int, scratch: Scratch) -> None:
        self.result = result
        self.samples = samples
        self.part = part  # bytes
        self.scratch = scratch
        self.order: list[str] = []
        self.held = 0  # bytes of the widest layer's input and output
        self.backward = False  # a checkpoint may run its part again in the backward pass
        self._waiting: dict[tuple[str, str], list[Tensor]] = {}  # rows of layers called at each step

    def begin(self, batch: Batch, number: int) -> None:
        self.batch, self.number = batch, number
        self.order = []
        self.held = 0
        self.draw = torch.Generator().manual_seed(number)

    def end(self) -> None:
        """Adds what waits."""
        for (path, what), rows in self._waiting.items():
            if rows:
                self._add(self.result.layers[path], what, torch.cat(rows))
        self._waiting = {}

    def hook(self, layer: WeightLayer) -> Callable[[nn.Module, Any, Any], Tensor]:
        seen = self.result.layers[layer.path]

        def forward(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            x, mask = inputs[0].detach(), self.batch.mask
            if not self.backward:
                self.order.append(layer.path)
                with torch.no_grad(), full_precision():
                    self.take(layer, seen, x, output.detach(), mask)
            if torch.is_grad_enabled():
                if not output.requires_grad:  # parameters ask for no gradient: the graph begins here
                    zero = torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
                    output = output + zero
                if not self.backward:
                    output.register_hook(lambda gradient: backward(gradient, mask))
            return output

        @full_precision()
        def backward(gradient: Tensor, mask: Tensor | None) -> None:
            rows = layer.gradient_rows(gradient, mask)
            if rows.dtype.itemsize < 4:
                rows = rows.float()
            self._later(layer, "gradients", rows)

        return forward

    def _later(self, layer: WeightLayer, what: str, rows: Tensor) -> None:
        """Adds rows, those of layers that are called at each step of a sequence many steps at a time."""
        if not layer.repeated:
            self._add(self.result.layers[layer.path], what, rows)
            return
        waiting = self._waiting.setdefault((layer.path, what), [])
        waiting.append(rows)
        if sum(map(len, waiting)) >= _TOGETHER:
            self._add(self.result.layers[layer.path], what, torch.cat(waiting))
            waiting.clear()

    def _add(self, seen: Surveyed, what: str, rows: Tensor) -> None:
        if what == "moments":
            seen.scatter = self._summed(seen.scatter, Scatter.of(rows))
            return
        if rows.shape[1] > WIDEST:
            part = rows.square().sum(dim=0, dtype=torch.float64)
        else:
            part = sum(((a.T @ a).double() for a in rows.split(4096)), rows.new_zeros(()).double())
        if seen.fisher is None:
            seen.fisher = self.scratch.kept(part)
        else:
            seen.fisher += part
        self.scratch.rest()

    def _summed(self, total: Scatter | None, part: Scatter) -> Scatter:
        if total is None:
            part.total = self.scratch.kept(part.total)
        self.scratch.rest()
        return added(total, part)

    def take(self, layer: WeightLayer, seen: Surveyed, x: Tensor, y: Tensor, mask: Tensor | None) -> None:
        """Adds the moments of one call of a layer."""
        rows = layer.rows_out(y, mask)  # of a convolution a copy, of a linear layer a view
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(
                f"Argument `data` must give finite values, but layer {layer.path!r} puts out NaN or "
                f"infinite ones in batch {self.number}."
            )
        count = len(rows)
        if seen.side == "outputs":
            self._later(layer, "moments", rows)
        else:
            del rows
            for part in layer.row_parts(x, mask, self.places(layer, x), self.part):
                self._later(layer, "moments", part)
        if seen.by_channel:
            seen.channels = self._summed(seen.channels, Scatter.of(layer.channel_rows(x)))
        seen.rows += count
        seen.shape = seen.shape or tuple(x.shape)
        if layer.refits:  # at others, networks in step do not wait
            self.held = max(self.held, x.nbytes + y.nbytes)

    def places(self, layer: WeightLayer, x: Tensor) -> Tensor | None:
        """The positions of this batch that stand for all, None for all of them."""
        if not layer.convolution:
            return None
        count = layer.positions(x)
        rows = max(_PRODUCTS / layer.k**2, _LEAST_ROWS * layer.k)
        share = rows / (self.samples * count)
        if share >= 1:
            return None
        return torch.randperm(count, generator=self.draw)[: max(1, math.ceil(share * count))]


def _common(orders: list[list[str]]) -> list[str]:
    """The layers called once in every batch whose order never differed."""
    once = [[path for path, n in Counter(order).items() if n == 1] for order in orders]
    everywhere = set(once[0]).intersection(*once[1:])
    kept = [[path for path in order if path in everywhere] for order in orders]
    place = {path: i for i, path in enumerate(kept[0])}
    for order in kept[1:]:
        # Whatever stands out of the first batch's order is dropped.
        latest = -1
        for path in order:
            if path in everywhere and place[path] < latest:
                everywhere.discard(path)
            else:
                latest = max(latest, place[path])
    return [path for path in kept[0] if path in everywhere]
