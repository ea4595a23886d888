"""Measures of a layer's spectrum: how many dimensions it uses. Corrected, and with ±, by `correction`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ketwork.networks.measures.correction import MOST_BIAS, corrected, deletion, ranged, studentized
from ketwork.networks.measures.intervals import between, interval
from ketwork.networks.measures.purity import OwnPairs
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.sketch_bounds import around
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate, Interval, shannon_entropy

KEPT = 0.99
"""The share of a layer's weight that its `rank_kept` leading eigenstates carry."""


def bounded(value: float, stderr: float, ends: Interval | None) -> Estimate:
    """An estimate whose value lies between those ends, whatever rounding did; without them where one is NaN."""
    if ends is None or any(map(math.isnan, (value, *ends))):
        return Estimate(value, stderr)
    return Estimate(value, stderr, around(value, *ends))


def entropy_of(state: LayerState) -> float:
    """S(ρ) in bits, of a spectrum that may not sum to 1 exactly."""
    return max(0.0, float(shannon_entropy(state.spectrum / state.spectrum.sum())))  # and never −0


BITS = 1 / math.log(2)
"""Bits in a nat."""


def discarded(spectrum: Tensor) -> Tensor:
    """1 − Σ λ of the k largest eigenvalues, (r,), for k = 1 … r."""
    return spectrum.flip(0).cumsum(0).flip(0) - spectrum


@measure(
    "entropy",
    title="entropy",
    unit="bit",
    definition="S(ρ) = −Tr ρ log₂ ρ of the layer's state ρ, the mean of its kets |ψ⟩⟨ψ|, corrected for finite data",
    column=Column("entropy", "bits", 3),
    reading="log₂ d where all dimensions are used alike, 0 where one is. With fewer independent samples than degrees "
    "of freedom it cannot be estimated and is missing.",
)
def entropy(state: LayerState) -> Estimate:
    """−Σ λ log₂ λ; its influence function is the surprisal of a vector."""
    if not state.exists:
        return Estimate()
    value = entropy_of(state)
    first = state.sample.variance(state.surprisal, value)
    if state.known is not None:
        return bounded(value, math.sqrt(first), state.known.entropy())
    return _of_entropy(state, value, first)


@measure(
    "effective_rank",
    title="effective rank",
    unit="dimensions",
    definition="2^S: how many equally used dimensions would have this entropy",
    column=Column("eff. rank", "2^S", 4),
    reading="Near d: all dimensions are used. A sharp fall from one layer to the next is a collapse.",
)
def effective_rank(state: LayerState) -> Estimate:
    """2^S with the error of S."""
    s = entropy(state)
    value = 2**s.value
    ends = (2**s.low, 2**s.high) if s.bounds else None
    return _transformed(value, value * math.log(2) * s.stderr, ends, 2**s.plain)


@measure(
    "participation_ratio",
    title="participation ratio",
    unit="dimensions",
    definition="1/Tr ρ², with Tr ρ² estimated without the bias of finite data: only pairs of different samples count",
    column=Column("part. ratio", "1/Tr ρ²", 10),
    reading="As the effective rank, but the largest eigenvalues weigh more.",
)
def participation_ratio(state: LayerState) -> Estimate:
    """1/Tr ρ² with Tr ρ² a U-statistic (Hoeffding 1948); ± is half of what lies between its values at Tr ρ² ± error."""
    # The influence function of Tr ρ² is 2(⟨ψ|ρ|ψ⟩ − Tr ρ²).
    if not state.exists:
        return Estimate()
    plain = state.purity
    if state.sample.samples < 2:
        return Estimate(plain=1 / plain)
    changes, purity = deletion(state).purity
    values = state.weights @ state.eigenvalues + state.outside * state.elsewhere
    d = float(state.accumulator.d)

    def ratio(unbiased: float) -> float:
        if math.isnan(unbiased):
            return math.nan
        return min(max(1 / unbiased, 1.0), d) if unbiased > 0 else d

    value = ratio(purity)
    if math.isnan(value):
        return Estimate(plain=1 / plain)
    first = 4 * state.sample.variance(values, plain)
    if state.known is not None:
        ends = OwnPairs.from_state(state).bounds(state.known.purity())
        ends = None if ends is None else (ratio(ends[1]), ratio(ends[0]))
        return bounded(value, value**2 * math.sqrt(first), ends)
    n, shares = state.sample.samples, state.sample.shares
    if state.sample.complete:
        first = (n - 1) / n * float(shares @ (changes.exact - changes.exact.mean()).square())
    variance = max(first - changes.second, changes.second)
    error = studentized(state, changes.first) * math.sqrt(variance)
    # Where chance takes Tr ρ² out of its range, the value is the end of it, and ± what can lie inside.
    around_it = (
        Estimate(purity, error) if 1 / d <= purity <= 1 else ranged(Estimate(purity, error), 1 / d, 1.0)
    )
    half = (ratio(around_it.value - around_it.stderr) - ratio(around_it.value + around_it.stderr)) / 2
    return Estimate(value, half, plain=1 / plain)


@measure(
    "top_weight",
    title="weight of the leading eigenstate",
    definition="the largest eigenvalue of ρ, corrected for finite data: the share of its leading eigenstate",
    column=Column("top weight", "", 6),
    reading="Near 1: a common direction (often the mean) or a few huge activations hold nearly everything.",
)
def top_weight(state: LayerState) -> Estimate:
    """λ₁; its influence function is |⟨v₁|ψ⟩|² − λ₁."""
    # λ₁ of finite data is too large, and what the leading eigenstate of the other samples holds of each sample is too
    # small; by the same to second order. Where the eigenvalues below are nearly as large, the number lies anywhere
    # between, and ± holds that.
    if not state.exists:
        return Estimate()
    value, known = float(state.spectrum[0]), state.known
    if known is not None:
        return bounded(value, state.sample.stderr(state.weights[..., 0], value), known.top())
    if not deletion(state).possible:
        return Estimate(plain=value)
    low, high = ends_of_top(state)
    return interval(max(low[0] - low[1], 1 / state.accumulator.d), min(high[0] + high[1], 1.0), value)


def ends_of_top(state: LayerState) -> tuple[tuple[float, float], tuple[float, float]]:
    """What λ₁ lies between, and how far a 95 % interval reaches beyond each."""
    top, weights, eigenvalues = deletion(state).top, state.weights, state.eigenvalues
    value, factor = float(state.spectrum[0]), studentized(state, deletion(state).first_of_top)
    k, all_turns = 1 + len(top.turns), float(top.turns.sum())
    turned = weights[..., 0] * (1 + all_turns) - weights[..., 1:k] @ top.turns
    center = value * (1 + all_turns) - float(eigenvalues[1:k] @ top.turns)
    above = factor * state.sample.stderr(weights[..., 0], value)
    below = factor * math.sqrt(state.sample.variance(turned, center) + top.own)
    reach = between(top.seen, value, max(above, below))
    return (top.seen, reach * below), (value, reach * above)


@measure(
    "rank_kept",
    title="rank for 99 %",
    unit="dimensions",
    definition="the smallest k for which the k largest eigenvalues of ρ sum to 0.99: the explained variance that is "
    "discarded, 1 − Σ λ, is at most 1 %",
    show="count",
    stderr=False,
    column=Column("99 % rank", "of d", 15),
    reading="Far below d: the layer could be cut. Variance is not accuracy: try `collapse` or `compress`.",
)
def rank_kept(state: LayerState) -> Estimate:
    """The rank that carries `KEPT` of the weight."""
    if not state.exists:
        return Estimate()
    known = state.known
    if known is None:
        return Estimate(_rank(state.spectrum / state.spectrum.sum()))
    return bounded(_rank(known.middle), math.nan, known.of_rank(_rank))


def _rank(spectrum: Tensor) -> int:
    if len(spectrum) == 0:
        return 0
    return 1 + int(torch.sum(discarded(spectrum) > 1 - KEPT + 1e-12))


def _of_entropy(state: LayerState, value: float, first: float) -> Estimate:
    """S(ρ) of exact moments, corrected."""
    if not deletion(state).possible:
        return Estimate(plain=value)
    result = corrected(value, state, deletion(state).entropy, first, BITS, MOST_BIAS)
    return ranged(result, 0.0, math.log2(state.accumulator.d))


def _transformed(value: float, stderr: float, ends: Interval | None, plain: float) -> Estimate:
    if ends is not None:
        return bounded(value, stderr, ends)
    return Estimate(value, stderr, plain=plain)
