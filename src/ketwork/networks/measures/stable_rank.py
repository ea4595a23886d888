"""Stable rank: how many times the leading eigenvalue fits into the state."""

from __future__ import annotations

import math

from ketwork.networks.measures.intervals import interval
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.spectral import bounded, ends_of_top, top_weight
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate


@measure(
    "stable_rank",
    title="stable rank",
    unit="dimensions",
    definition="1/λ₁ with λ₁ the largest eigenvalue of ρ: ‖A‖_F²/‖A‖₂² of the matrix A of the layer's kets (Rudelson "
    "and Vershynin 2007, arXiv math/0503442)",
    column=Column("stable rank", "1/λ₁", 17, page=False),
    reading="Near 1: one direction dominates, whatever the other eigenvalues are.",
)
def stable_rank(state: LayerState) -> Estimate:
    """1/λ₁: between its values at both bounds of λ₁, with the error of their mean; ± reaches d where λ₁ may be 1/d."""
    if not state.exists:
        return Estimate()
    top = top_weight(state)
    if top.bounds:
        value = 1 / top.value
        return bounded(value, value**2 * top.stderr, (1 / top.high, 1 / top.low))
    if math.isnan(top.value):
        return Estimate(plain=1 / top.plain)
    (low, below), (high, above) = ends_of_top(state)
    d = state.accumulator.d
    low = max(low, 1 / d)
    reach = (above + below) / (2 * low * high)
    least, most = max(1 / high - reach, 1.0), min(1 / low + reach, d)
    if low - below <= 1 / d:  # all directions may be alike
        middle = (least + most) / 2
        least, most = min(least, 2 * middle - d), max(most, d)
    return interval(least, most, 1 / top.plain)
