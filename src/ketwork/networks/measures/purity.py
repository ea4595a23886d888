"""Tr ρ² without the bias of finite data, from pairs of different samples only, and what is certain of it.

With M = Σᵢ Aᵢ, Aᵢ the sum of w|ψ⟩⟨ψ| over the vectors of sample i (less the mean, where that is subtracted), Wᵢ its
trace and W = Σ Wᵢ, the mean of Tr AᵢAⱼ over pairs i ≠ j, over that of WᵢWⱼ, is

    U = (W² Tr ρ² − r t)/(W² − t),    t = Σ Wᵢ²,    r = Σ ‖Aᵢ‖²/t,

and for N unit vectors (N Tr ρ² − 1)/(N − 1). t is summed over all samples; r is 1 where each has one vector, and lies
between 1/min(T, d) and 1 where the longest has T (‖A‖² ≥ (Tr A)²/rank A). U grows with Tr ρ², falls with r and is
monotone in t, so that it lies between its values at the corners of what is known of the three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ketwork.networks.measures.sketch_bounds import around
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Interval


@dataclass(frozen=True)
class OwnPairs:
    """What pairs of a sample with itself take of the sums: W, t and r, and what the latter two lie between.

    `squares` and `share` are None where that is not known, as in older files.
    """

    total: float
    t: float
    r: float
    squares: Interval | None
    share: Interval | None

    @classmethod
    def from_state(cls, state: LayerState) -> OwnPairs:
        """Those of a layer; what is not summed over all samples is estimated from the kept ones."""
        sample, sums = state.sample, state.accumulator.sample_weights
        own, t = (float(sample.shares @ each) for each in sample.own())
        r = own / t if t > 0 else math.nan
        complete = len(sample.counts) == sample.samples and sample.complete and not state.zeros
        if complete:
            return cls(sample.total, t, r, (t, t), (r, r))
        if sums is None or (state.center and sums.weighted is None):
            alone = not state.center and state.normalize == "state" and bool((sample.counts <= 1).all())
            return cls(sample.total, t, r, *(((t, t), (r, r)) if alone else (None, None)))
        least = 1 / max(min(sums.longest, state.accumulator.d), 1)
        low, high = _squares(state) if state.center else (sums.squares, sums.squares)
        return cls(
            sample.total,
            min(max(t, low), high),
            1.0 if sums.longest <= 1 else min(max(r, least), 1.0),
            (low, high),
            (least, 1.0),
        )

    def unbiased(self, purity: float) -> float:
        """U for a Tr ρ²; NaN where there are not two samples that weigh something."""
        return _unbiased(self.total, purity, self.t, self.r)

    def bounds(self, purity: Interval) -> Interval | None:
        """What U lies between where Tr ρ² lies there; None where that is not certain."""
        if self.squares is None or self.share is None:
            return None
        corners = [_unbiased(self.total, p, t, r) for p in purity for t in self.squares for r in self.share]
        return around(self.unbiased(sum(purity) / 2), *corners)


def _unbiased(total: float, purity: float, t: float, r: float) -> float:
    left = total**2 - t
    return (total**2 * purity - r * t) / left if left > 0 else math.nan


def _squares(state: LayerState) -> Interval:
    """Σ Wᵢ² of samples less the mean μ: certain, and exact for real vectors of which each sample has one.

    Wᵢ' = Wᵢ − 2 Re⟨μ, sᵢ⟩ + Tᵢ‖μ‖² with sᵢ the sum of the sample's vectors. Of its square only Q = Σ (Re⟨μ, sᵢ⟩)² is
    not summed up. For single real vectors Q is ⟨μ|M|μ⟩; else it is at least (Σ Re⟨μ, sᵢ⟩)²/N and at most ‖μ‖² Σ‖sᵢ‖².
    """
    sums, moment, mean = state.accumulator.sample_weights, state.accumulator.moment, state.mean
    assert sums is not None
    assert sums.weighted is not None
    assert sums.counted is not None
    square = float(mean.abs().square().sum())
    known = (
        sums.squares
        + square**2 * sums.pairs
        + 2 * square * sums.products
        - 4 * float((mean.conj() * sums.weighted).sum().real)
        - 4 * square * float((mean.conj() * sums.counted).sum().real)
    )
    low, high = (state.count * square) ** 2 / max(sums.samples, 1), square * sums.lengths
    if sums.longest <= 1:
        factor = moment.factor()
        along = moment.matrix() @ mean if factor is None else factor.mH @ (factor @ mean)
        within = float((mean.conj() * along).sum().real)
        high = within + moment.slack * square
        low = low if mean.is_complex() else within
    least = state.sample.total**2 / max(sums.samples, 1)
    low, high = max(known + 4 * low, least), max(known + 4 * high, least)
    return low, max(low, high)
