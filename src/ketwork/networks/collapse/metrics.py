"""How well a network does on samples, one number each, so that errors can count samples and differences pair them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ketwork.networks.activations import IGNORED, Batch, activations
from ketwork.networks.measures import Predictions
from ketwork.quantum import Estimate

METRICS = ("accuracy", "loss", "kl")

_LOOKED_AT = 1 << 22  # numbers of an output by which it is recognized

ScoreSamples = Callable[[Any, Tensor | None, Any], Tensor]
"""Of (output, labels, original output) one number a sample, larger ones better."""


@dataclass(frozen=True)
class Metric:
    """A mean over predictions of a quality (`better` +1) or of a loss (−1).

    `name` is one of `METRICS`, or that of `measure`, a callable (output, labels, original output) -> one number a
    sample, larger ones better. `predictions` says what the network's output holds (see `recognized`), the same for all
    batches and ranks.
    """

    name: str
    measure: ScoreSamples | None = None
    predictions: Predictions | None = None

    @classmethod
    def from_argument(cls, metric: str | ScoreSamples) -> Metric:
        """The metric of that name, or of a callable."""
        if callable(metric):
            return cls(getattr(metric, "__name__", type(metric).__name__), metric)
        if metric not in METRICS:
            raise ValueError(
                f"Argument `metric` must be one of {METRICS} or a callable (output, labels, original) -> scores, "
                f"but is {metric!r}."
            )
        return cls(metric)

    @property
    def better(self) -> int:
        """+1 where larger is better, −1 where smaller is."""
        return -1 if self.measure is None and self.name != "accuracy" else 1

    @property
    def to_original(self) -> bool:
        """Whether it is itself a distance from the original network."""
        return self.measure is None and self.name == "kl"

    def recognized(
        self, outputs: Sequence[Any], labels: Sequence[Tensor | None], batches: Sequence[Batch]
    ) -> Metric:
        """The metric that reads outputs as what the original network's are: logits, probabilities or numbers.

        They are known by their values in all batches (a part of them, where these are many) and by the labels.
        """
        if self.measure is not None:
            return self
        if next(iter(activations(outputs[0])), None) is None:
            raise ValueError(
                "Argument `model` must put out a floating tensor, or a tuple, mapping or dataclass with one, for "
                f"metric {self.name!r}, but puts out {type(outputs[0]).__name__}. Give `forward=` that returns the "
                "tensor, or a metric of your own, a callable (output, labels, original) -> scores."
            )
        read = Predictions.from_output(None, None, outputs[0], batches[0])
        parts = [read.rows(*of) for of in zip(outputs, batches, strict=True)]
        widths = [part.shape[-1] for part in parts[0]]
        alike = [
            [part.shape[-1] for part in rows] == widths for rows in parts
        ]  # not those of contrastive logits
        numbers = sum(part.numel() for rows in parts for part in rows)
        step = -(-numbers // _LOOKED_AT)
        rows = [
            torch.cat([p[::step] for p, a in zip(of, alike, strict=True) if a])
            for of in zip(*parts, strict=True)
        ]
        known: list[Tensor] = []
        for here, batch, of, a in zip(labels, batches, parts, alike, strict=True):
            fitting = None if here is None else _fitting(here, batch, len(of[0]))
            if a and fitting is not None:
                known.append(fitting[::step])
        every = len(known) == sum(alike) and len({part.shape[1:] for part in known}) == 1
        read = read.recognized(rows, torch.cat(known).to(rows[0].device) if every else None)
        # The unit of numbers must not depend on the data.
        return replace(
            self, predictions=Predictions(tuple(replace(head, spread=None) for head in read.heads))
        )

    def scores(self, output: Any, labels: Tensor | None, original: Any, batch: Batch) -> Scores:
        """The scores of a batch, from the network's output and that of the original network."""
        if self.measure is not None:
            per_sample = torch.as_tensor(self.measure(output, labels, original)).detach()
            if per_sample.shape != (batch.size,):
                raise ValueError(
                    f"Argument `metric` must return one number a sample, of shape ({batch.size},), but returned "
                    f"shape {tuple(per_sample.shape)}. Do not average in it."
                )
            return Scores(per_sample.double().cpu(), torch.ones(batch.size, dtype=torch.float64))
        reading = self.predictions or self.recognized([original], [labels], [batch]).predictions
        assert reading is not None
        if self.name == "kl":
            parts = []
            for head in reading.heads:
                kl = head.kl(head.rows(original, batch), head.rows(output, batch))
                parts.append(_by_sample(kl, torch.ones_like(kl), batch))
            counts = parts[0].counts
            return Scores(torch.stack([part.sums * counts / part.counts for part in parts]).sum(0), counts)
        head = reading.heads[0]
        rows = head.rows(output, batch)  # (P, features)
        targets = self._targets(labels, rows, batch)
        if targets.is_floating_point():
            if self.name == "accuracy":
                raise ValueError(
                    "Metric 'accuracy' needs classes, but the labels are floating numbers. Use metric='loss'."
                )
            squares = (rows.double() - targets.reshape(len(rows), -1)).square().mean(-1)
            return _by_sample(squares, torch.ones_like(squares), batch)
        known = targets != IGNORED
        if head.loss in ("probabilities", "bernoulli"):
            rows = head.natural(rows, torch.float64)
        if rows.shape[-1] == 1:  # one logit of two classes
            rows = torch.cat([torch.zeros_like(rows), rows], dim=-1)
        most = int(targets.max())
        if most >= rows.shape[-1] or bool((targets[known] < 0).any()):
            raise ValueError(
                f"Argument `labels` must be classes 0 … {rows.shape[-1] - 1} of the network's output, but holds {most}."
            )
        if self.name == "accuracy":
            each = (rows.argmax(-1) == targets).double()
        else:
            each = F.cross_entropy(rows.double(), targets, ignore_index=IGNORED, reduction="none")
        return _by_sample(each * known, known.double(), batch)

    def _targets(self, labels: Tensor | None, rows: Tensor, batch: Batch) -> Tensor:
        if labels is None:
            raise ValueError(
                f"Metric {self.name!r} needs labels, but the data has none. Give `labels=`, or use metric='kl'."
            )
        labels = labels.to(rows.device)
        if not labels.is_floating_point():
            labels = labels.long()
            if batch.mask is not None and labels.shape == batch.mask.shape and len(rows) != labels.numel():
                labels = labels[batch.mask]
        if labels.is_floating_point() and labels.numel() == rows.numel():
            return labels.double()
        if labels.numel() != len(rows) or labels.is_floating_point():
            raise ValueError(
                f"Argument `labels` must fit the network's {len(rows)} predictions of {rows.shape[-1]} features in a "
                f"batch, but has shape {tuple(labels.shape)}."
            )
        return labels.flatten()


@dataclass(frozen=True)
class Scores:
    """Σ and number of the predictions' scores of each sample, both (N,), float64: their ratio is the mean."""

    sums: Tensor
    counts: Tensor

    @classmethod
    def joined(cls, parts: list[Scores]) -> Scores:
        """Those of all batches."""
        return cls(torch.cat([p.sums for p in parts]), torch.cat([p.counts for p in parts]))

    def mean(self) -> Estimate:
        """Σ sums / Σ counts, with the standard error of a ratio of means over samples."""
        total = float(self.counts.sum())
        value = float(self.sums.sum()) / total
        residuals = self.sums - value * self.counts
        n = len(residuals)
        error = math.sqrt(float(residuals.square().sum()) * n / (n - 1)) / total if n > 1 else math.nan
        return Estimate(value, error)

    def minus(self, other: Scores) -> Estimate:
        """The difference of the means, of the same samples: the error is that of the samples' differences."""
        return Scores(self.sums - other.sums, self.counts).mean()


def _fitting(labels: Tensor, batch: Batch, predictions: int) -> Tensor | None:
    """The labels of a batch with one entry, or one row, for each prediction; None where they do not fit."""
    mask = batch.mask
    if mask is not None and labels.shape[:2] == mask.shape and len(mask) != predictions:
        labels = labels[mask.to(labels.device)]
    if len(labels) != predictions:
        labels = labels.flatten()
    return labels if len(labels) == predictions else None


def _by_sample(each: Tensor, counts: Tensor, batch: Batch) -> Scores:
    """The scores (P,) of predictions, summed over those of each sample."""
    if len(each) % batch.size == 0 and (batch.mask is None or len(each) != int(batch.mask.sum())):
        return Scores(*(x.double().view(batch.size, -1).sum(1).cpu() for x in (each, counts)))
    assert batch.mask is not None
    owner = torch.arange(batch.size, device=each.device).repeat_interleave(batch.mask.sum(1))
    empty = each.new_zeros(batch.size, dtype=torch.float64)
    return Scores(*(empty.index_add(0, owner, x.double()).cpu() for x in (each, counts)))
