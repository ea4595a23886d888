"""Measures of superposition in the basis of neurons."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ketwork.networks.measures.correction import MOST_BIAS, corrected, deletion, ranged
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.sample import at_once
from ketwork.networks.measures.spectral import BITS, bounded, entropy, entropy_of
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate, shannon_entropy


@measure(
    "coherence",
    title="coherence",
    unit="bit",
    definition="relative entropy of coherence in the neuron basis, S(diag ρ) − S(ρ): 0 if neurons fire alone, log₂ d "
    "if all fire alike; corrected for finite data",
    column=Column("coherence", "bits", 6),
    reading="Large: the layer's directions are superpositions of many neurons.",
)
def coherence(state: LayerState) -> Estimate:
    """S(diag ρ) − S(ρ); its influence function is the difference of those of both."""
    if not state.exists:
        return Estimate()
    populations = state.populations
    classical = float(shannon_entropy(populations))
    value = classical - entropy_of(state)
    logs = torch.where(populations > 0, populations, 1.0).log2()
    in_basis = state.sample.kets.abs().square().double()
    first = state.sample.variance(-(in_basis @ logs) - state.surprisal, value)
    if state.known is None:
        if not deletion(state).possible:
            return Estimate(plain=value)
        result = corrected(value, state, deletion(state).coherence, first, BITS, MOST_BIAS)
        return ranged(result, 0.0, math.log2(state.accumulator.d))
    low, high = state.known.entropy()
    return bounded(value, math.sqrt(first), (max(classical - high, 0.0), max(classical - low, 0.0)))


@measure(
    "ket_coherence",
    title="coherence of one vector",
    unit="bit",
    definition="the same for single kets, −Σ|cⱼ|² log₂|cⱼ|², averaged: how many neurons each ket superposes",
    column=Column("of one vector", "bits", 13, page=False),
)
def ket_coherence(state: LayerState) -> Estimate:
    """The mean over the kept vectors."""
    if not state.exists:
        return Estimate()
    kets = state.accumulator.reservoir.kets
    each = [_entropy(part.abs().square().double()) for part in kets.split(at_once(kets))]
    return Estimate(*state.plain_sample.mean(torch.cat(each)))


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(dim=-1) / math.log(2)


@measure(
    "coherent_share",
    title="share of coherence",
    definition="coherence over S(diag ρ) = S(ρ) + coherence, the entropy in the neuron basis: 0 % where the "
    "eigenstates are single neurons",
    show="percent",
    stderr=False,
    column=Column("coherent", "% of S(diag)", 16, page=False),
    reading="Small: the layer is axis-aligned, its leading directions are single neurons.",
)
def coherent_share(state: LayerState) -> Estimate:
    """Coherence over the entropy in the neuron basis."""
    part, rest = coherence(state), entropy(state)
    total, plain = rest.value + part.value, rest.plain + part.plain
    if not plain > 1e-9:
        return Estimate()
    share = Estimate(part.value / total if total > 0 else math.nan, plain=part.plain / plain)
    return bounded(share.value, math.nan, (part.low / total, part.high / total)) if part.bounds else share
