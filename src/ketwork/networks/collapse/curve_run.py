"""`collapse_curve`: how many leading eigenstates of each layer a network needs to do what it does."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ketwork._compat import renamed
from ketwork.networks.activations import (
    Batch,
    Forward,
    Layers,
    Mask,
    Reading,
    Site,
    batches,
    callers_precision,
    device_of,
    drawn,
    dtype_of,
    intervene,
    kept_buffers,
    neutral,
    select,
    tokenized,
    unwrapped,
)
from ketwork.networks.collapse.curve import CollapseCurve, CurvePoint, LayerCurve
from ketwork.networks.collapse.metrics import Metric, Scores, ScoreSamples
from ketwork.networks.collapse.projections import Directions
from ketwork.networks.collapse.run import center_of, leading, mean_of, measured_at, same_layer
from ketwork.networks.runtime import PartialError, Progress, show_progress
from ketwork.networks.study import Layer, Study
from ketwork.networks.study import study as study_network
from ketwork.quantum import Estimate, Seed


@renamed(
    groups={"reading": lambda reading: reading},
    convert={"around": center_of},
    around="center",
    samples="max_samples",
    feature_axis="reading.feature_axis",
)
@neutral()
def collapse_curve(
    model: nn.Module,
    data: Any,
    metric: str | ScoreSamples = "kl",
    *,
    layers: Layers = None,
    ranks: Sequence[int] | None = None,
    tolerance: float = 0.01,
    study: Study | None = None,
    center: bool = False,
    labels: Any = None,
    mask: Mask = None,
    tokenizer: Any = None,
    forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    seed: Seed = 0,
    reading: Reading = Reading(),  # noqa: B008  frozen
    progress: Progress = False,
) -> CollapseCurve:
    """The metric against rank for every layer, collapsed alone onto its leading eigenstates, as by `collapse`.

    One pass gives the layers' states and the original network's metric; then each rank of each layer takes one
    more. Without `ranks` the smallest rank that keeps the metric is bisected (at geometric means), some log₂ d ranks
    a layer: it keeps the metric and the rank below does not. A metric that is not monotone in rank may be kept
    by a smaller one too; `ranks=range(1, d)` would show it.

    Args:
        model, data, mask, tokenizer, forward, max_samples, batch_size, reading: as in `study`. The data is kept in
            memory, and the original network's output for it.
        metric: how the network does, a mean over predictions (samples, or positions that exist):

            - `"kl"`: KL of the collapsed network's predictions from the original one's, in nats, with softmax of the
              logits. Outputs that are probabilities (softmax, sigmoid) or their logarithms are recognized and taken as
              such; numbers that are neither stand for normal distributions of unit variance, KL = ½‖f − f′‖²;
            - `"accuracy"`: the share of labels that the largest logit, or probability, hits;
            - `"loss"`: cross entropy in nats for integer labels, mean square error for floating ones;
            - a callable (output, labels, original output) -> one number a sample, larger ones better.
        layers: which modules, as in `study`; of those in `study` if it is given.
        ranks: measure these, where they are no larger than d, instead of bisecting.
        tolerance: a rank keeps the metric if the KL is at most this, or if any other metric gets worse by no more
            than this share of the original network's: 0.01 keeps 99 %.
        study: where the eigenstates come from, say from training data; None takes the data itself, which flatters.
        center: collapse each layer about its mean, see `collapse`.
        labels: an array with one entry a sample, a key of the batches, or None for what the batches hold. Integers
            are the network's classes, −100 none.
        seed: draws the samples that are taken where `max_samples` is less than there are.
        progress: as in `study`, of the samples that have gone through the network.

    Returns:
        A `CollapseCurve`. Standard errors are of the samples (positions of one are not independent); those of
        `change` pair each sample with itself in the original network. The choice of the smallest rank by the same
        samples is not in them.

    Raises:
        SelectorError: `layers` names nothing.
        TypeError, ValueError: an argument is not what it must be, NaN or infinite values, or no labels where the
            metric needs them.

    Cost: (1 + ranks measured) forward passes, one more where no `study` is given (`passes` of the result counts them),
    and one decomposition a layer.

    >>> _ = torch.manual_seed(0)
    >>> rank_two = torch.randn(8, 2) @ torch.randn(2, 8)
    >>> net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 3))
    >>> net[0].weight.data = rank_two
    >>> curve = collapse_curve(net, torch.randn(500, 8), tolerance=1e-9, layers="0")
    >>> curve.smallest()[["layer", "d", "rank"]].values.tolist()
    [['0', 8, 2]]
    """
    if not (isinstance(tolerance, (int, float)) and 0 <= tolerance < math.inf):
        raise ValueError(f"Argument `tolerance` must be a number ≥ 0, but is {tolerance!r}.")
    wanted = None if ranks is None else sorted({int(rank) for rank in ranks})
    if wanted is not None and (not wanted or wanted[0] < 1):
        raise ValueError(f"Argument `ranks` must hold numbers ≥ 1, but is {ranks!r}.")
    network = unwrapped(model)
    data, labels, mask, _, taken = drawn(tokenized(data, tokenizer), labels, mask, max_samples, seed)
    label_key = labels if isinstance(labels, str) else None
    with _evaluating(network), kept_buffers(network), show_progress(progress, None) as report:
        run = _Run(network, Metric.from_argument(metric), forward, label_key, report)
        run.read(data, labels, mask, max_samples, batch_size)
        chosen = None if study is None or layers is None else set(select(network, layers).chosen)
        study = run.begin(study, layers, mask, center, reading)
        rows = [row for row in study if chosen is None or chosen.intersection((row.name, *row.aliases))]
        if wanted is not None and rows and wanted[-1] > max(row.d for row in rows):
            raise ValueError(
                f"Argument `ranks` must not exceed the layers' features, {max(row.d for row in rows)} at most, "
                f"but holds {wanted[-1]}."
            )
        curves = tuple(_curve(run, row, wanted, tolerance, center, reading) for row in rows)
    settings = {
        "model": type(network).__name__,
        "layers": "default" if layers is None else str(layers),
        "center": center,
        "ranks": wanted,
        "better": run.metric.better,
        "to_original": run.metric.to_original,
        "batch_size": batch_size,
        "taken": taken,
        "torch": torch.__version__,
    }
    original = run.original.mean()
    return CollapseCurve(
        curves, run.metric.name, original, tolerance, run.samples, run.passes, settings, dict(study.skipped)
    )


def _curve(
    run: _Run,
    row: Layer,
    wanted: list[int] | None,
    tolerance: float,
    center: bool,
    reading: Reading,
) -> LayerCurve:
    """The points of one layer: at the ranks wanted, or at those of a bisection; and at rank d, original."""
    states = leading(row, row.d if wanted is None else min(max(wanted), row.d), center)
    weights = row.spectrum(row.center or center).cumsum(0).clamp(max=1)
    mean = mean_of(row) if center else None
    original = run.original.mean()
    free = Estimate(0.0, 0.0)
    points = {row.d: CurvePoint(row.d, 1.0, original, free, True)}

    def measure(rank: int) -> bool:
        scores = run.collapsed(row, Directions(states.rows[:rank]), mean, reading)
        value, change = scores.mean(), scores.minus(run.original)
        if math.isnan(value.value):
            raise ValueError(f"Metric {run.metric.name!r} is NaN with layer {row.name!r} at rank {rank}.")
        keeps = run.keeps(value, change, original, tolerance)
        points[rank] = CurvePoint(rank, float(weights[rank - 1]), value, change, keeps)
        return keeps

    if wanted is not None:
        for rank in wanted:
            if rank < row.d:
                measure(rank)
    else:
        low, high = 0, row.d  # `low` does not keep the metric, `high` does
        while high - low > 1:
            middle = min(max(round(math.sqrt(max(low, 1) * high)), low + 1), high - 1)
            low, high = (low, middle) if measure(middle) else (middle, high)
    return LayerCurve(row.name, row.call, row.kind, row.d, tuple(points[rank] for rank in sorted(points)))


@dataclass
class _Run:
    """The data, the network and what it put out original."""

    network: nn.Module
    metric: Metric
    forward: Forward | None
    label_key: str | None
    progress: Callable[[int], None] | None
    passes: int = 0
    seen: int = 0

    def read(self, data: Any, labels: Any, mask: Mask, max_samples: int | None, batch_size: int) -> None:
        """Takes the batches and their labels into memory."""
        if batch_size < 1:
            raise ValueError(f"Argument `batch_size` must be at least 1, but is {batch_size}.")
        self.batches = list(
            batches(
                data,
                batch_size=batch_size,
                max_samples=max_samples,
                mask=mask,
                dtype=dtype_of(self.network),
                device=device_of(self.network),
            )
        )
        self.samples = sum(batch.size for batch in self.batches)
        self.labels = [*self._labels(labels)]

    def begin(self, study: Study | None, layers: Layers, mask: Mask, center: bool, reading: Reading) -> Study:
        """The original network's outputs, and, unless a study of it is given, one more pass for the layers' states."""
        if study is None:
            self.passes += 1
            study = self._studied(layers, mask, center, reading)
        with torch.no_grad():
            self.outputs = [self._output(batch) for batch in self.batches]
        self.metric = self.metric.recognized(self.outputs, self.labels, self.batches)
        self.original = self._scored(self.outputs)
        if not bool(self.original.sums.isfinite().all()):
            first = int((~self.original.sums.isfinite()).nonzero()[0])
            raise ValueError(
                f"The original network's {self.metric.name} is NaN or infinite for sample {first} (counted from 0). "
                "Fix the data or the network there, or remove the sample."
            )
        return study

    def _studied(self, layers: Layers, mask: Mask, center: bool, reading: Reading) -> Study:
        def call(network: nn.Module, content: Any) -> Any:
            return self.batches[0].call(network, content, self.forward, self.label_key)

        try:
            study = study_network(
                self.network,
                [batch.content for batch in self.batches],
                layers=layers,
                labels=False,
                mask=mask,
                forward=call,
                normalize="ensemble" if center else "state",
                reading=reading,
            )
        except PartialError as failure:
            raise failure.__cause__ or failure from None
        assert study is not None
        return study

    def collapsed(self, row: Layer, states: Directions, mean: Tensor | None, reading: Reading) -> Scores:
        """One pass with the layer projected onto these states."""
        unused = torch.Generator()

        def change(site: Site) -> Tensor | None:
            if site.key != (row.name, row.call):
                return None
            same_layer(row, site)
            return measured_at(site.values, site.present, states, "project", unused, mean)[0]

        with (
            torch.no_grad(),
            intervene(self.network, [row.name], change, reading.feature_axis, axes=[row.info]) as live,
        ):

            def outputs() -> Iterator[Any]:
                for batch in self.batches:
                    live.masks = batch.masks
                    yield self._output(batch)

            return self._scored(outputs())

    def keeps(self, value: Estimate, change: Estimate, original: Estimate, tolerance: float) -> bool:
        """Whether a value is within the tolerance."""
        if self.metric.to_original:
            return value.value <= tolerance
        return -self.metric.better * change.value <= tolerance * abs(original.value)

    def _output(self, batch: Batch) -> Any:
        with callers_precision():
            output = batch.run(self.network, self.forward, self.label_key)
        self.seen += batch.size
        if self.progress is not None:
            self.progress(self.seen)
        return output

    def _scored(self, outputs: Iterable[Any]) -> Scores:
        self.passes += 1
        each = zip(outputs, self.labels, self.outputs, self.batches, strict=True)
        return Scores.joined([self.metric.scores(*of) for of in each])

    def _labels(self, given: Any) -> Iterator[Tensor | None]:
        """The labels of each batch, as tensors."""
        start = 0
        for batch in self.batches:
            here = batch.labels
            if isinstance(given, str):
                if not isinstance(batch.content, dict) or given not in batch.content:
                    raise ValueError(f"Argument `labels` must name a key of each batch, but is {given!r}.")
                here = batch.content[given]
            elif given is not None:
                here = given[start : start + batch.size]
                if len(here) != batch.size:
                    raise ValueError(
                        f"Argument `labels` must have one entry a sample, but has {len(given)} for {self.samples}."
                    )
            start += batch.size
            yield _as_numbers(here)


def _as_numbers(labels: Any) -> Tensor | None:
    if labels is None or isinstance(labels, Tensor):
        return labels
    array = np.asarray(labels)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"Argument `labels` must be numbers of the network's classes, but holds {array.flat[0]!r}. Map them first."
        )
    return torch.from_numpy(array)


@contextlib.contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each module's own flag back afterwards."""
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
