"""One survey of the calibration data: each layer's moments, and how much the predictions depend on its output.

For each sample one forward pass, and one backward pass for each of three draws. g is the gradient at the layer's
output y of what `Predictions.draw` draws; G = Σ g gᵀ over positions, per prediction and draw. Then
½ E δyᵀ G δy is what a change δy of the layer's output costs, in nats a prediction, to lowest order: the Gauss–Newton
form of the KL (Amari 1998, Neural Comput. 10, 251; Martens 2020, JMLR 21, 146).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations import Batch
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.covariance import Scatter, added
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.measures import TEMPERATURES

WIDEST = 4096  # features; of a wider output only the diagonal of G is kept


@dataclass
class Surveyed:
    """What was seen of one layer: its moments on the smaller side, G, and how it was called.

    `side` says whose moments `scatter` holds, "inputs" or "outputs". `fisher` is Σ g gᵀ (m, m) of all draws, or its
    diagonal (m,), None where no gradient could be taken. `rows` is the number of positions seen, `shape` that of its
    first input.
    """

    side: str
    scatter: Scatter | None = None
    fisher: Tensor | None = None
    rows: int = 0
    shape: tuple[int, ...] = ()


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
        found = self.layers[path].fisher
        return None if found is None else found / (self.predictions * len(TEMPERATURES))

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


def survey(
    model: nn.Module,
    layers: Sequence[WeightLayer],
    calibration: Calibration,
    generator: torch.Generator,
    inputs_of: Collection[str] = (),
) -> Survey:
    """The survey of the batches to fit on, in one forward and three backward passes.

    Layers named in `inputs_of` have the moments of their inputs taken, whichever side is smaller.

    Raises:
        ValueError: a layer put out NaN or infinite values; it and the batch are named.
    """
    found = Survey(
        {
            layer.path: Surveyed("inputs" if layer.k < layer.m or layer.path in inputs_of else "outputs")
            for layer in layers
        }
    )
    orders: list[list[str]] = []
    calibration.held = []
    live = _Live(found)
    with contextlib.ExitStack() as stack:
        for layer in layers:
            handle = layer.module.register_forward_hook(live.hook(layer))
            stack.callback(handle.remove)
        stack.enter_context(torch.inference_mode(False))
        for number, batch in enumerate(calibration.fit):
            live.begin(batch, number)
            with torch.enable_grad():
                rows = calibration.rows(model, batch)
                if not bool(torch.isfinite(rows).all()):
                    raise ValueError(
                        f"Argument `data` must give finite predictions, but batch {number} gives NaN or infinite ones."
                    )
                if rows.requires_grad:
                    for temperature in TEMPERATURES:
                        drawn = calibration.predictions.draw(rows, temperature, generator)
                        drawn.backward(retain_graph=True)
                    calibration.ran += len(TEMPERATURES) * batch.size
                else:
                    found.differentiable = False
            calibration.held.append(live.held)
            found.samples += batch.size
            found.predictions += len(rows)
            orders.append(live.order)
    found.order = _common(orders)
    return found


class _Live:
    """The hooks' state during one batch."""

    def __init__(self, found: Survey) -> None:
        self.found = found
        self.order: list[str] = []
        self.held = 0  # bytes of the widest layer's input and output
        self.calls: Counter[str] = Counter()

    def begin(self, batch: Batch, number: int) -> None:
        self.batch, self.number = batch, number
        self.order = []
        self.held = 0

    def hook(self, layer: WeightLayer) -> Callable[[nn.Module, Any, Any], Tensor]:
        seen = self.found.layers[layer.path]

        def forward(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            self.order.append(layer.path)
            x, mask = inputs[0].detach(), self.batch.mask
            with torch.no_grad():
                rows = layer.rows_out(output.detach(), mask)
                if not bool(torch.isfinite(rows).all()):
                    raise ValueError(
                        f"Argument `data` must give finite values, but layer {layer.path!r} puts out NaN or "
                        f"infinite ones in batch {self.number}."
                    )
                scatter = Scatter.of(rows if seen.side == "outputs" else layer.rows_in(x, mask))
                seen.scatter = added(seen.scatter, scatter)
                seen.rows += len(rows)
                seen.shape = seen.shape or tuple(x.shape)
                self.held = max(self.held, x.nbytes + output.nbytes)
            if not output.requires_grad:  # parameters ask for no gradient: the graph begins here
                output = output + torch.zeros(
                    (), dtype=output.dtype, device=output.device, requires_grad=True
                )
            output.register_hook(lambda gradient: backward(gradient, mask))
            return output

        def backward(gradient: Tensor, mask: Tensor | None) -> None:
            rows = layer.rows_out(gradient, mask)
            if rows.dtype.itemsize < 4:
                rows = rows.float()
            if layer.m > WIDEST:
                part = rows.square().sum(dim=0, dtype=torch.float64)
            else:
                part = sum(((a.T @ a).double() for a in rows.split(4096)), rows.new_zeros(()).double())
            seen.fisher = part if seen.fisher is None else seen.fisher + part

        return forward


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
