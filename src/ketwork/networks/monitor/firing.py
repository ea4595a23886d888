"""How many of the probe's samples each neuron fires on: dead neurons, and how sure it is that they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from torch import Tensor

from ketwork.networks.moments import LayerSum, Vectors
from ketwork.quantum import Estimate
from ketwork.records import Count, Form


@dataclass
class Firing(LayerSum, kind="firing"):
    """Of each neuron on how many of N samples it was not 0, (d,), and the last of these, counted from 0, (d,)."""

    samples: Count
    counts: Annotated[Tensor, Form("int d")]
    last: Annotated[Tensor, Form("int d")]

    @classmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """Counts by sample: a neuron fires on a sample if it is not 0 at any of its positions."""
        there = vectors.counts > 0
        fires = vectors.rows != 0
        if not vectors.single:
            fired = torch.zeros(len(there), fires.shape[1], dtype=torch.int32, device=fires.device)
            fires = fired.index_add_(0, vectors.owners, fires.to(torch.int32)) > 0
        number = there.cumsum(0)
        last = (fires * number[:, None]).amax(dim=0) if len(there) else number.new_zeros(fires.shape[1])
        return cls(there.sum(), fires.sum(dim=0), last - 1)  # type: ignore[arg-type]

    def __iadd__(self, other: Self) -> Self:
        self.last = torch.where(other.last >= 0, other.last + self.samples, self.last)
        self.counts = self.counts + other.counts
        self.samples += other.samples
        return self

    def dead(self) -> Estimate:
        """The share of neurons that fire on no sample, with the delete-one-sample jackknife's standard error.

        Without sample i those are dead too that fire on it alone, Dᵢ of them: the variance is (N−1)/N Σ(Dᵢ − D̄)²/d².
        """
        d, n = len(self.counts), self.samples
        if n == 0 or d == 0:
            return Estimate()
        share = float((self.counts == 0).double().mean())
        if n == 1:
            return Estimate(share)
        alone = torch.bincount(self.last[self.counts == 1], minlength=n).double()
        variance = (n - 1) / n * float((alone - alone.mean()).square().sum())
        return Estimate(share, math.sqrt(variance) / d)
