"""What is certain of a state whose moment was sketched: intervals that hold the exact numbers.

A sketch says of the eigenvalues λ₁ ≥ λ₂ ≥ … of ρ that lowᵢ ≤ λᵢ ≤ lowᵢ + slack (Weyl: ρ is the sketch plus something
between 0 and slack·1), that Σ λᵢ = 1, and that no more than `rank` of them are not 0. Among all such spectra one
majorises every other, and one is majorised by every other (`Known.purest`, `Known.most_mixed`; docs/scaling.md has the
proof), so each Schur-concave or -convex number (entropy, purity, the largest eigenvalue) lies between its values at
these two, to the `rounding` of products in the network's own precision. The slack is the sketch's own bound
(`moments/frequent_directions.py`), as a share of the trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.quantum import Interval, shannon_entropy


def around(value: float, *ends: float) -> Interval:
    """The interval of these ends in order, in which the value lies, whatever rounding did to any of them."""
    return min(value, *ends), max(value, *ends)


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a spectrum of sum 1: `low` (r,), descending, `slack` and `rank`, and relative `rounding`."""

    low: Tensor
    slack: float
    rank: int
    rounding: float = 0.0

    @property
    def missing(self) -> float:
        """1 − Σ low: the weight of which the place is not known."""
        return max(1 - float(self.low.sum()), 0.0)

    @cached_property
    def purest(self) -> Tensor:
        """The spectrum (rank,) that majorises all: what is missing is given to the largest, each up to its most."""
        before = self.slack * torch.arange(self.rank, dtype=torch.float64, device=self.low.device)
        return self._floor + (self.missing - before).clamp(min=0, max=self.slack)

    @cached_property
    def most_mixed(self) -> Tensor:
        """The spectrum (rank,) that all majorise: what is missing lifts the smallest to a common level t.

        λᵢ = min(max(t, lowᵢ), lowᵢ + slack), with t from Σ λᵢ = 1. Where rounding lets the low ones alone sum to more,
        nothing is missing and they are the spectrum.
        """
        floor = self._floor
        ends, order = torch.cat([floor, floor + self.slack]).sort()
        # How fast the sum grows with t beyond each end: one more where an eigenvalue starts, one fewer where it ends.
        rising = torch.where(order < len(floor), 1.0, -1.0).double().cumsum(0)
        sums = floor.sum() + torch.nn.functional.pad((rising[:-1] * ends.diff()).cumsum(0), (1, 0))
        i = max(int((sums <= 1).sum()) - 1, 0)
        level = ends[i] + (1 - sums[i]).clamp(min=0) / rising[i].clamp(min=1)
        return torch.minimum(torch.maximum(level, floor), floor + self.slack)

    @property
    def middle(self) -> Tensor:
        """The mean of the two extremes, (rank,), itself one of these spectra: what values are computed from."""
        return (self.purest + self.most_mixed) / 2

    def entropy(self) -> Interval:
        """Of −Σ λ log₂ λ, in bits."""
        low, high = float(shannon_entropy(_one(self.purest))), float(shannon_entropy(_one(self.most_mixed)))
        return self._rounded(low, high, max(1.0, high))

    def purity(self) -> Interval:
        """Of Σ λ²."""
        low, high = float(self.most_mixed.square().sum()), float(self.purest.square().sum())
        return self._rounded(low, high, high)

    def top(self) -> Interval:
        """Of the largest eigenvalue."""
        low, high = float(self.most_mixed.max()), float(self.purest.max())
        return self._rounded(low, high, high)

    def of_rank(self, of: Callable[[Tensor], int]) -> Interval:
        """Of a rank that is a number of a spectrum."""
        return of(self.purest), of(self.most_mixed)

    def kept(self, rank: int) -> Interval:
        """Of the sum of so many of the largest eigenvalues."""
        low, high = float(self.most_mixed[:rank].sum()), float(self.purest[:rank].sum())
        return self._rounded(low, high, high)

    def _rounded(self, low: float, high: float, scale: float) -> Interval:
        """The interval with what rounding may add on either side."""
        return max(low - self.rounding * scale, 0.0), high + self.rounding * scale

    @property
    def _floor(self) -> Tensor:
        return torch.nn.functional.pad(self.low[: self.rank], (0, max(self.rank - len(self.low), 0)))


def _one(spectrum: Tensor) -> Tensor:
    return spectrum / spectrum.sum()
