"""Activation sparsity: how many of a layer's activations are exactly zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch

from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import LayerSum, Vectors
from ketwork.quantum import Estimate
from ketwork.records import Count


@dataclass
class ZeroCounts(LayerSum, kind="zero_counts"):
    """Of N samples with nᵢ activations each, of which zᵢ are zero: N, Σ n, Σ z, and Σ n², Σ nz, Σ z² for the error."""

    samples: Count = 0
    activations: Count = 0
    zeros: Count = 0
    squares: float = 0.0
    products: float = 0.0
    zero_squares: float = 0.0

    @classmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """Counts by sample, since the positions of one are not independent."""
        n = (vectors.counts * vectors.rows.shape[1]).double()
        zeros = vectors.rows.shape[1] - torch.linalg.vector_norm(vectors.rows, ord=0, dim=1).double()
        z = torch.zeros_like(n).index_add_(0, vectors.owners, zeros)
        sums = torch.stack([n.sum(), z.sum(), (n * n).sum(), (n * z).sum(), (z * z).sum()]).tolist()
        return cls(len(n), int(sums[0]), int(sums[1]), *sums[2:])

    def __iadd__(self, other: Self) -> Self:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


@measure(
    "sparsity",
    title="activation sparsity",
    definition="share of activations that are exactly 0, over all neurons and vectors, zero vectors included",
    show="percent",
    sums=ZeroCounts,
    column=Column("zeros", "% of activations", 18, page=False),
    reading="What a rectifier leaves unused; high sparsity can be had for speed by kernels that skip zeros.",
)
def sparsity(state: LayerState) -> Estimate:
    """Σ z / Σ n, with the standard error of a ratio of means over samples."""
    sums = state.accumulator.sums["sparsity"]
    assert isinstance(sums, ZeroCounts)
    if sums.activations == 0:
        return Estimate()
    share = sums.zeros / sums.activations
    if sums.samples < 2:
        return Estimate(share)
    residual = sums.zero_squares - 2 * share * sums.products + share**2 * sums.squares
    variance = max(residual, 0.0) * sums.samples / (sums.samples - 1)
    return Estimate(share, math.sqrt(variance) / sums.activations)
