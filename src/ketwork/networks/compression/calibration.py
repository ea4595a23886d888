"""The calibration data: batches to fit on, batches held back to choose by, and how often networks ran on them."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ketwork.networks.activations import Batch, Forward, Mask, batches, carriers, map_tensors, take
from ketwork.networks.measures import CATEGORICAL, Output, Predictions
from ketwork.quantum import Estimate

HELD_BACK = 5  # every fifth sample is held back
_SEEN = 2**24  # numbers of predictions without labels by which it is recognized what they are

Rows = tuple[Tensor, ...]


@dataclass
class Calibration:
    """N samples in batches, four fifths of them to fit on, and how a network is called and read.

    `ran` counts samples that went through a network (twice for a backward pass); `passes` is it over N. `held` are the
    bytes of the widest layer's input and output, for each batch to fit on, once a survey was made. `expected` is an
    estimate of the passes in all, for the progress.
    """

    fit: list[Batch]
    held_back: list[Batch]
    predictions: Predictions
    forward: Forward | None = None
    label_key: str | None = None
    progress: Callable[[int, int], None] | None = None
    ran: int = 0
    expected: float = 8.0
    held: list[int] = field(default_factory=list)
    samples: int = field(init=False)
    _truth: _Truth = field(init=False)
    _widths: tuple[int, list[int]] | None = None

    def __post_init__(self) -> None:
        self.samples = sum(batch.size for batch in [*self.fit, *self.held_back])

    @property
    def passes(self) -> float:
        """Forward passes over the N samples so far; a backward pass, here without gradients of weights, is one too."""
        return self.ran / self.samples

    def output(self, model: nn.Module, batch: Batch) -> Any:
        """What the network puts out for a batch, whose floating tensors are given in the network's own precision."""
        try:
            return in_precision_of(model, batch).run(model, self.forward, self.label_key)
        finally:
            self.advance(batch.size)  # of a pass that others end, too

    def advance(self, samples: int) -> None:
        """Counts samples that went through a network."""
        self.ran += samples
        if self.progress is not None:
            self.progress(self.ran, max(self.ran, round(self.expected * self.samples)))

    def rows(self, model: nn.Module, batch: Batch) -> Rows:
        """The network's predictions for a batch, (P, features) of each head."""
        return self.predictions.rows(self.output(model, batch), batch)

    def remember(self, original: nn.Module, memory: int, recognize: bool = False) -> None:
        """Keeps the original's predictions on held-back data, to measure the KL by; on disk beyond `memory` bytes.

        With `recognize`, what each head is taken for is settled by all of them.

        Raises:
            ValueError: a prediction is NaN or infinite.
        """
        self._truth = _Truth(memory)
        with torch.no_grad():
            for batch in self.held_back:
                rows = self.rows(original, batch)
                if not all(bool(torch.isfinite(part).all()) for part in rows):
                    raise ValueError(
                        "Argument `data` must give finite predictions, but a sample held back gives NaN or infinite "
                        "ones."
                    )
                self.check_width(batch, rows)
                self._truth.add(rows)
        labels = _joined([batch.labels for batch in self.held_back])
        joined = self._truth.joined(_SEEN if labels is None else None)
        if recognize:
            self.predictions = self.predictions.recognized(joined, labels)
        else:
            self.predictions = self.predictions.in_units_of(joined)

    def check_width(self, batch: Batch, rows: Rows) -> None:
        """Raises a ValueError where the number of features goes with that of samples, as of contrastive logits."""
        widths = [part.shape[-1] for part in rows]
        size, first = self._widths = self._widths or (batch.size, widths)
        for head, a, b in zip(self.predictions.heads, first, widths, strict=True):
            if a != b:
                raise ValueError(
                    f"Argument `output` must name predictions with as many features for any number of samples, but "
                    f"{head.name} has {a} for {size} samples and {b} for {batch.size}, as a contrastive network's "
                    "logits of all pairs have. Name another part of the output, or give a callable (output, batch) -> "
                    "tensor that takes the embeddings."
                )

    @property
    def constant(self) -> bool:
        """Whether the original predicts the same for all held-back data, to the precision of its numbers."""
        ranges: list[tuple[Tensor, Tensor]] = []
        for parts in self._truth:
            new = [(rows.amin(dim=0), rows.amax(dim=0)) for rows in parts]
            ranges = [
                (torch.minimum(low, a), torch.maximum(high, b))
                for (low, high), (a, b) in zip(ranges or new, new, strict=True)
            ]
        return all(
            bool((high - low <= 10 * torch.finfo(low.dtype).eps * torch.maximum(high, -low)).all())
            for low, high in ranges
        )

    @property
    def certainty(self) -> float:
        """The mean probability of the most likely class, of the first head of classes; NaN where there is none."""
        for i, head in enumerate(self.predictions.heads):
            if head.loss in CATEGORICAL:
                sums = [(head.certainty(rows[i]) * len(rows[i]), len(rows[i])) for rows in self._truth]
                return math.fsum(total for total, _ in sums) / sum(count for _, count in sums)
        return math.nan

    def kl(self, model: nn.Module, samples: int | None = None) -> float:
        """The mean KL of `model`'s predictions from the original's on held-back data, in nats a prediction.

        `samples` measures on about so many only, spread over the data. Infinite where the model's are not finite.
        """
        return self.estimate(model, samples).value

    def estimate(self, model: nn.Module, samples: int | None = None) -> Estimate:
        """`kl` with its standard error over samples (a sample's positions are not independent)."""
        complete = len(self.held_back)
        count = complete
        if samples is not None:
            held = sum(batch.size for batch in self.held_back)
            count = min(complete, max(1, round(samples * complete / held)))
        sums: list[list[Tensor]] = [[] for _ in self.predictions.heads]
        counts: list[list[Tensor]] = [[] for _ in self.predictions.heads]
        with torch.no_grad():
            for i in range(count):
                place = (2 * i + 1) * complete // (2 * count)
                batch = self.held_back[place]
                rows = zip(self.predictions.heads, self._truth[place], self.rows(model, batch), strict=True)
                for j, (head, a, b) in enumerate(rows):
                    kls = head.kl(a, b).cpu()
                    owner = _owners(batch, len(kls))
                    size = int(owner.max()) + 1
                    sums[j].append(kls.new_zeros(size).index_add(0, owner, kls))
                    counts[j].append(torch.bincount(owner, minlength=size).double())
        value = variance = 0.0
        for total, n in zip(map(torch.cat, sums), map(torch.cat, counts), strict=True):
            mean = float(total.sum() / n.sum())
            value += mean
            rest = total - mean * n
            many = len(rest)
            variance += float(rest.square().sum()) * many / max(many - 1, 1) / float(n.sum()) ** 2
        if not math.isfinite(value):
            return Estimate(math.inf, math.nan)
        return Estimate(value, math.sqrt(variance))

    def accuracy(self, model: nn.Module) -> float:
        """The share of held-back predictions of the first head of classes that name their label.

        Raises:
            ValueError: there are no labels, or not one for each prediction.
        """
        heads = [i for i, head in enumerate(self.predictions.heads) if head.loss in CATEGORICAL]
        if not heads:
            raise ValueError(
                "Argument `max_drop` bounds the loss of accuracy, so the network must put out classes, but its output "
                f"is taken for {self.predictions.heads[0].loss}. Use `max_kl`, or say `loss='kl'`."
            )
        right = count = 0
        with torch.no_grad():
            for batch in self.held_back:
                rows = self.rows(model, batch)[heads[0]]
                classes = _classes(batch, len(rows)).to(rows.device)
                known = classes >= 0  # -100 stands for none
                right += int((rows.argmax(dim=-1) == classes)[known].sum())
                count += int(known.sum())
        return right / max(count, 1)

    def accuracies(self, before: nn.Module, after: nn.Module) -> dict[str, float] | None:
        """The accuracies of two networks on the held-back samples; None where they have no labels of these classes."""
        try:
            return {"before": self.accuracy(before), "after": self.accuracy(after)}
        except ValueError:
            return None


class _Truth:
    """The original's predictions on each held-back batch, those beyond so many bytes in a temporary folder."""

    def __init__(self, memory: int) -> None:
        self._left = memory
        self._parts: list[Rows | Path] = []
        self._folder: Path | None = None

    def add(self, rows: Rows) -> None:
        rows = tuple(part.detach().clone() for part in rows)
        self._left -= sum(part.nbytes for part in rows)
        if self._left >= 0:
            self._parts.append(rows)
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ketwork-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{len(self._parts)}.pt"
        torch.save(rows, path)
        self._parts.append(path)

    def __iter__(self) -> Iterator[Rows]:
        """Those of each batch."""
        return (self[place] for place in range(len(self._parts)))

    def __getitem__(self, place: int) -> Rows:
        part = self._parts[place]
        return torch.load(part, weights_only=True) if isinstance(part, Path) else part

    def joined(self, most: int | None = None) -> Rows:
        """Those that are in memory, of all batches; of the first batch where none is.

        Given `most`, some rows of each batch, evenly spaced, where there are more numbers than that in all.
        """
        here = [part for part in self._parts if not isinstance(part, Path)] or [self[0]]
        numbers = sum(rows.numel() for part in here for rows in part)
        step = 1 if most is None else -(-numbers // most)
        return tuple(torch.cat([rows[::step] for rows in parts]) for parts in zip(*here, strict=True))


def calibrate(
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
    progress: Callable[[int, int], None] | None = None,
    mine: Callable[[int], bool] | None = None,
) -> Calibration:
    """The calibration data of `data` for a network in evaluation mode, which runs once on the first samples.

    `mine` says by number which batches are this process's.

    Raises:
        ValueError: fewer than five samples, or an output that holds no prediction, is not finite or counts the samples.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    source = batches(
        data,
        batch_size=batch_size,
        max_samples=samples,
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
    complete = Calibration(fit, held_back, Predictions(()), forward, labels, progress)
    with torch.no_grad():
        first = complete.output(model, fit[0])
        complete.predictions = Predictions.from_output(output, loss, first, fit[0])
        complete.check_width(fit[0], complete.predictions.rows(first, fit[0]))
    return complete


def in_precision_of(model: nn.Module, batch: Batch) -> Batch:
    """The batch with its floating tensors in the dtype of the network's numbers, where these have one."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(dtypes) != 1:
        return batch
    dtype = dtypes.pop()
    if type(batch.content) is not Tensor and isinstance(batch.content, PackedSequence):
        return batch

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != dtype else tensor

    return replace(batch, content=map_tensors(batch.content, cast))


def _owners(batch: Batch, predictions: int) -> Tensor:
    """The sample that each of a batch's predictions is of; each its own where they cannot be distinguished."""
    if batch.mask is not None and int(batch.mask.sum()) == predictions:
        return torch.arange(batch.size).repeat_interleave(batch.mask.sum(1).cpu())
    if predictions % batch.size == 0:
        return torch.arange(batch.size).repeat_interleave(predictions // batch.size)
    return torch.arange(predictions)


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


def _joined(labels: Sequence[Any]) -> Tensor | None:
    """The labels of all batches, where they are tensors of one shape a sample."""
    parts = [part for part in labels if isinstance(part, Tensor)]
    if len(parts) != len(labels) or len({part.shape[1:] for part in parts}) != 1:
        return None
    return torch.cat(parts)


def picked(batch: Batch, index: Tensor) -> Batch:
    """The batch of these samples, by their places in the batch."""

    places = index.tolist()

    def pick(tree: Any) -> Any:
        return take(tree, places, carriers(tree, batch.size))

    masks = tuple(replace(mask, present=mask.present[index.to(mask.present.device)]) for mask in batch.masks)
    labels = pick(batch.labels)
    return Batch(pick(batch.content), labels, masks, len(index), fed=batch.fed, shifted=batch.shifted)
