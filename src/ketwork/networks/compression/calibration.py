"""The calibration data: batches to fit on, batches held back to choose by, and how often networks ran on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.batches import Batch, Forward, Mask, batches
from ketwork.networks.activations.outputs import map_tensors
from ketwork.networks.measures.predictions import Output, Predictions

HELD_BACK = 5  # every fifth sample is held back


@dataclass
class Calibration:
    """N samples in batches, four fifths of them to fit on, and how a network is called and read.

    `ran` counts samples that went through a network (twice for a backward pass); `passes` is it over N. `held` are the
    bytes of the widest layer's input and output, for each batch to fit on, once a survey was made.
    """

    fit: list[Batch]
    held_back: list[Batch]
    predictions: Predictions
    forward: Forward | None = None
    label_key: str | None = None
    progress: Callable[[int], None] | None = None
    ran: int = 0
    held: list[int] = field(default_factory=list)
    samples: int = field(init=False)
    _truth: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.samples = sum(batch.size for batch in [*self.fit, *self.held_back])

    @property
    def passes(self) -> float:
        """Forward passes over the N samples so far; a backward pass, here without gradients of weights, is one too."""
        return self.ran / self.samples

    def output(self, model: nn.Module, batch: Batch) -> Any:
        """What the network puts out for a batch."""
        output = batch.run(model, self.forward, self.label_key)
        self.ran += batch.size
        if self.progress is not None:
            self.progress(self.ran)
        return output

    def rows(self, model: nn.Module, batch: Batch) -> Tensor:
        """The network's predictions for a batch, (P, features)."""
        return self.predictions.rows(self.output(model, batch), batch)

    def remember(self, original: nn.Module, memory: int) -> None:
        """Keeps the original's predictions on held-back data, to measure the KL by.

        Where they take more bytes than `memory`, batches evenly spaced over the data are held back in place of all.

        Raises:
            ValueError: a prediction is NaN or infinite.
        """
        with torch.no_grad():
            first = self.rows(original, self.held_back[0])
            a_sample = first.numel() * first.itemsize / self.held_back[0].size
            whole = sum(batch.size for batch in self.held_back)
            count = max(1, int(min(1.0, memory / (a_sample * whole)) * len(self.held_back)))
            self.held_back = [self.held_back[i * len(self.held_back) // count] for i in range(count)]
            self._truth = [first, *(self.rows(original, batch) for batch in self.held_back[1:])]
        if not all(bool(torch.isfinite(rows).all()) for rows in self._truth):
            raise ValueError(
                "Argument `data` must give finite predictions, but a sample held back gives NaN or infinite ones."
            )

    @property
    def constant(self) -> bool:
        """Whether the original predicts the same for all held-back data, to the precision of its numbers."""
        rows = torch.cat(self._truth)
        spread = rows.amax(dim=0) - rows.amin(dim=0)
        return bool((spread <= 10 * torch.finfo(rows.dtype).eps * rows.abs().amax(dim=0)).all())

    def kl(self, model: nn.Module, samples: int | None = None) -> float:
        """The mean KL of `model`'s predictions from the original's on held-back data, in nats a prediction.

        `samples` measures on about so many only, spread over the data. Infinite where the model's are not finite.
        """
        whole = len(self.held_back)
        count = whole
        if samples is not None:
            held = sum(batch.size for batch in self.held_back)
            count = min(whole, max(1, round(samples * whole / held)))
        total, predictions = 0.0, 0
        with torch.no_grad():
            for i in range(count):
                place = (2 * i + 1) * whole // (2 * count)
                kls = self.predictions.kl(self._truth[place], self.rows(model, self.held_back[place]))
                total, predictions = total + float(kls.sum()), predictions + len(kls)
        return total / predictions if math.isfinite(total) else math.inf

    def accuracy(self, model: nn.Module) -> float:
        """The share of held-back predictions that name their label.

        Raises:
            ValueError: there are no labels, or not one for each prediction.
        """
        right = count = 0
        with torch.no_grad():
            for batch in self.held_back:
                rows = self.rows(model, batch)
                classes = _classes(batch, len(rows)).to(rows.device)
                known = classes >= 0  # -100 stands for none
                right += int((rows.argmax(dim=-1) == classes)[known].sum())
                count += int(known.sum())
        return right / max(count, 1)


def calibration(
    model: nn.Module,
    data: Any,
    *,
    samples: int | None,
    batch_size: int,
    mask: Mask = None,
    output: Output = None,
    loss: str | None = None,
    forward: Forward | None = None,
    labels: str | None = None,
    progress: Callable[[int], None] | None = None,
    mine: Callable[[int], bool] | None = None,
) -> Calibration:
    """The calibration data of `data` for a network in evaluation mode, which runs once on the first samples.

    `mine` says by number which batches are this process's.

    Raises:
        ValueError: fewer than five samples, or an output that holds no prediction or is not finite.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    source = batches(
        data,
        batch_size=batch_size,
        samples=samples,
        mask=mask,
        dtype=parameter.dtype if parameter is not None else None,
        device=parameter.device if parameter is not None else None,
        mine=mine,
    )
    fit: list[Batch] = []
    held_back: list[Batch] = []
    start = 0
    for batch in source:
        numbers = torch.arange(start, start + batch.size) % HELD_BACK
        start += batch.size
        if batch.elsewhere:
            continue
        for part, rows in ((fit, numbers != HELD_BACK - 1), (held_back, numbers == HELD_BACK - 1)):
            if rows.any():
                part.append(batch if bool(rows.all()) else picked(batch, rows.nonzero()[:, 0]))
    if not held_back:
        raise ValueError(
            f"Argument `data` must hold at least {HELD_BACK} samples, one of them being held back to choose by, but "
            f"holds {start}. Give a few hundred like those that the network will meet."
        )
    whole = Calibration(fit, held_back, Predictions("", "squared"), forward, labels, progress)
    with torch.no_grad():
        first = whole.output(model, fit[0])
    whole.predictions = Predictions.of(output, loss, first, fit[0])
    return whole


def _classes(batch: Batch, predictions: int) -> Tensor:
    labels = batch.labels
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        raise ValueError(
            "Argument `max_drop` bounds the loss of accuracy, so the data must have integer labels: pairs (x, y), or "
            "mappings with `labels`. Use `max_kl` without."
        )
    if batch.mask is not None and labels.shape == batch.mask.shape:
        labels = labels[batch.mask]
    if labels.numel() != predictions:
        raise ValueError(
            f"Argument `max_drop` needs one label for each prediction, but there are {labels.numel()} labels for "
            f"{predictions} predictions."
        )
    return labels.reshape(-1)


def picked(batch: Batch, index: Tensor) -> Batch:
    """The batch of these samples, by their places in the batch."""

    def pick(tensor: Tensor) -> Tensor:
        return tensor[index.to(tensor.device)] if tensor.ndim and len(tensor) == batch.size else tensor

    content = map_tensors(batch.content, pick)
    labels = map_tensors(batch.labels, pick)
    mask = None if batch.mask is None else pick(batch.mask)
    return Batch(content, labels, mask, len(index))
