"""Measures of what fires at all, and how strongly."""

from __future__ import annotations

import math

from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate


@measure(
    "dead",
    title="dead neurons",
    definition="share of neurons that are exactly 0 on every ket",
    show="percent",
    stderr=False,
    column=Column("dead", "neurons", 5),
    reading="Dead neurons can be removed at no loss; many of them in training are a warning.",
)
def dead(state: LayerState) -> Estimate:
    """Of the diagonal of the moment."""
    return Estimate(float((state.accumulator.moment.diagonal() == 0).double().mean()))


@measure(
    "zero",
    title="zero vectors",
    definition="share of activations that are zero vectors: counted here, skipped elsewhere",
    show="percent",
    stderr=False,
    column=Column("zero", "vectors", 6, page=False, nonzero=True),
)
def zero(state: LayerState) -> Estimate:
    """Zero vectors over all vectors."""
    zeros, kets = state.accumulator.zeros, state.accumulator.kets
    return Estimate(zeros / max(zeros + kets, 1))


@measure(
    "norm",
    title="mean norm",
    definition="mean length ‖a‖ of the activations that are not zero",
    column=Column("norm", "", 14, page=False),
)
def norm(state: LayerState) -> Estimate:
    """Σ‖a‖ over the vectors, with the standard error of a ratio of means over all samples."""
    accumulator = state.accumulator
    if accumulator.kets == 0:
        return Estimate()
    mean, n, sums = accumulator.norms / accumulator.kets, accumulator.samples, accumulator.sample_weights
    if n < 2:
        return Estimate(mean)
    if sums is not None:
        residual = sums.norms - 2 * mean * sums.norm_products + mean**2 * sums.kets
        return Estimate(mean, math.sqrt(max(residual, 0.0) * n / (n - 1)) / accumulator.kets)
    return Estimate(mean, state.plain_sample.stderr(accumulator.reservoir.norms.double(), mean))
