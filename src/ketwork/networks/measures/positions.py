"""Measures of how the positions of one sample (tokens, pixels) differ from each other."""

from __future__ import annotations

import math

from torch import Tensor

from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate


@measure(
    "entanglement",
    title="entanglement",
    unit="bit",
    definition="entanglement entropy between positions and features of one sample's state Σ aₜⱼ|t⟩|j⟩ over all its "
    "positions, averaged over kept samples, 128 at most, and no fewer than 16 of them where samples are long and wide",
    column=Column("entangl.", "bits", 9),
)
def entanglement(state: LayerState) -> Estimate:
    """The mean over the kept samples."""
    kept = state.accumulator.entanglements
    return Estimate() if kept is None else _mean(kept.entropies)


@measure(
    "rank_collapse",
    title="rank collapse",
    definition="1 − entanglement / log₂ min(positions, features), averaged over the same: 1 when all positions of a "
    "sample hold the same ket",
    column=Column("collapse", "", 11, page=False),
    reading="Near 1 in deep layers: tokens have become alike (over-smoothing).",
)
def rank_collapse(state: LayerState) -> Estimate:
    """The mean over the kept samples with several positions, of a layer with several features."""
    kept = state.accumulator.entanglements
    if kept is None:
        return Estimate()
    several = kept.sides > 1
    return _mean(1 - kept.entropies[several] / kept.sides[several].double().log2())


def _mean(values: Tensor) -> Estimate:
    n = len(values)
    if n == 0:
        return Estimate()
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(n) if n > 1 else math.nan)
