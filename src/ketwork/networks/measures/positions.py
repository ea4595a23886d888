"""Measures of how the positions of one sample (tokens, pixels) differ from each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate


@measure(
    "entanglement",
    title="entanglement",
    unit="bit",
    definition="entanglement entropy between positions and features of one sample's state Σ aₜⱼ|t⟩|j⟩, averaged over "
    "sampled samples (of at most 64 positions where both sides are larger)",
    column=Column("entangl.", "bits", 9),
)
def entanglement(state: LayerState) -> Estimate:
    """The mean over the reservoir's samples."""
    entropies = state.shared(_entropies)
    return Estimate() if entropies is None else _mean(entropies[0])


@measure(
    "rank_collapse",
    title="rank collapse",
    definition="1 − entanglement / log₂ min(positions, features), averaged over the same: 1 when all positions of a "
    "sample hold the same ket",
    column=Column("collapse", "", 11, page=False),
    reading="Near 1 in deep layers: tokens have become alike (over-smoothing).",
)
def rank_collapse(state: LayerState) -> Estimate:
    """The mean over the reservoir's samples with several positions."""
    entropies = state.shared(_entropies)
    if entropies is None:
        return Estimate()
    values, side = entropies
    several = side > 1
    return _mean(1 - values[several] / side[several].log2())


def _entropies(state: LayerState) -> tuple[Tensor, Tensor] | None:
    """The entanglement entropy of each kept sample, in bits, and the smaller number of its positions and features."""
    grams, sides = state.accumulator.reservoir.grams, state.accumulator.reservoir.sides
    if grams is None or sides is None:
        return None
    some = sides > 0
    wide = torch.complex128 if grams.is_complex() else torch.float64
    weights = torch.linalg.eigvalsh(grams[some].to(wide)).clamp(min=0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return -torch.special.xlogy(weights, weights).sum(dim=-1) / math.log(2), sides[some].double()


def _mean(values: Tensor) -> Estimate:
    n = len(values)
    if n == 0:
        return Estimate()
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(n) if n > 1 else math.nan)
