"""A layer of a study as what new kets are compared with, and the held-out samples that the study kept of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ketwork.networks.detection.references import LayerReference
from ketwork.networks.detection.shrinkage import (
    Covariance,
    about_zero,
    between_classes,
    within_classes,
)
from ketwork.networks.detection.spaces import Distances, Eigenspace
from ketwork.networks.detection.stacks import BY_CLASS
from ketwork.networks.moments import LabelledMoments, LayerAccumulator, Moment, Sums
from ketwork.networks.study import Layer

_NOTHING = 1e-12
_FEWEST = 2


def reference_of(
    layer: Layer, task: str | None, methods: tuple[str, ...], *, keep_held: bool, worst: bool
) -> LayerReference | str:
    """The reference of a layer, or why it has none.

    With `keep_held` the samples that the study held out stay so; else they are taken in too. Cost: O(d³) a covariance.
    """
    accumulator = layer.accumulator
    if accumulator.d < 2:
        return "it has a single feature, of which the ket is always the same"
    like = accumulator.reservoir.kets[:0]
    every = None
    if worst and accumulator.info.positions:
        every = Eigenspace.from_state(_state_of(accumulator.moment, accumulator.samples), like)
    labelled = sample_labels(accumulator, task)
    if labelled is None:
        state = _state_of(accumulator.moment, accumulator.samples)
        if _constant(state):
            return _ALIKE
        return LayerReference(
            accumulator.info, layer.d, accumulator.samples, Eigenspace.from_state(state, like), every=every
        )
    classes = labelled.classes
    sums = labelled.fitting(classes)
    if not keep_held:
        sums = sums + Sums.from_rows(labelled.held, classes)
    moments, real = sums.moments, like.real
    n = round(float(moments.counts.sum()))
    if n < _FEWEST:
        return f"{n} of its samples have a label and a vector that is not 0"
    state = about_zero(moments.summed() / n, n)
    if _constant(state):
        return _ALIKE
    by_class = overall = None
    if task == "classes" and set(methods) & set(BY_CLASS):
        shared = within_classes(moments)
        if shared.mean < _NOTHING:
            return "its vectors are all alike in each class"
        weight, inner = shared.shrinkage, shared.shrunk()
        codes = moments.present.nonzero()[:, 0]  # all samples of a class may be held out
        by_class = Distances.from_covariance(moments.means[codes], codes, inner, weight, real)
        # Regularized alike, so that it is no less than the shared one in any direction, as it must be.
        mean, first = moments.sums.sum(dim=0, keepdim=True) / n, torch.zeros(1, dtype=torch.int64)
        overall = Distances.from_covariance(mean, first, inner + between_classes(moments), weight, real)
    return LayerReference(
        accumulator.info,
        layer.d,
        n,
        Eigenspace.from_state(state, real),
        by_class,
        overall,
        every,
        labelled.complex,
    )


def sample_labels(accumulator: LayerAccumulator, task: str | None) -> LabelledMoments | None:
    """The moments of one mean-pooled ket a sample, None where there are none."""
    return accumulator.labelled if task in ("classes", "values") else None


def held_out(layers: Sequence[Layer], task: str | None) -> tuple[list[Tensor], Tensor, Tensor]:
    """The held-out kets of each layer (n, d), of the samples that all layers have; their places, their targets.

    They are in the order of the samples' random keys, which is a random one.
    """
    held = []
    for layer in layers:
        labelled = sample_labels(layer.accumulator, task)
        assert labelled is not None
        labelled.settle()
        held.append(labelled.held)
    common = held[0].samples
    for rows in held[1:]:
        common = common[torch.isin(common, rows.samples)]
    keys = held[0].keys[torch.isin(held[0].samples, common)]
    common = common[keys.argsort(stable=True)]
    kets = []
    for rows in held:
        order = rows.samples.argsort()
        kets.append(rows.kets[order[torch.searchsorted(rows.samples[order], common)]])
    order = held[0].samples.argsort()
    targets = held[0].targets[order[torch.searchsorted(held[0].samples[order], common)]]
    return kets, common, targets


def _state_of(moment: Moment, samples: int) -> Covariance:
    """The state of all kets; positions of a sample are not independent, so noise is that of so many samples.

    What a sketch lost of it is spread evenly over all directions.
    """
    matrix = moment.matrix() / moment.weight
    lost = 1.0 - float(matrix.diagonal().real.sum())
    if moment.sketch is not None and lost > 0:
        matrix = matrix + torch.eye(moment.d).to(matrix) * (lost / moment.d)
    return about_zero(matrix, samples)


def _constant(state: Covariance) -> bool:
    """Whether all kets are the same: their state is pure."""
    return 1.0 - float(state.matrix.abs().square().sum()) < _NOTHING


_ALIKE = "its vectors all have one direction"
