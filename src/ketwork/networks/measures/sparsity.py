"""Activation sparsity: how many of a layer's activations are exactly zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from ketwork.networks.measures.ratios import ratio_of
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import SampleRatio, Vectors
from ketwork.quantum import Estimate


@dataclass
class Zeros(SampleRatio, kind="zeros"):
    """Of samples with nᵢ vectors, the share of each one's activations that are zero, the sums of `SampleRatio`."""

    @classmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """By sample, since the positions of one are not independent."""
        nonzero = torch.linalg.vector_norm(vectors.rows, ord=0, dim=1).double()
        return cls.from_samples(vectors, 1 - nonzero / vectors.rows.shape[1], torch.ones_like(nonzero))


@measure(
    "sparsity",
    title="activation sparsity",
    definition="share of activations that are exactly 0, over all neurons and vectors, zero vectors included",
    show="percent",
    sums=Zeros,
    column=Column("zeros", "% of activations", 18, page=False),
    reading="What a rectifier leaves unused; high sparsity can be had for speed by kernels that skip zeros.",
)
def sparsity(state: LayerState) -> Estimate:
    """Σ z / Σ n, with the standard error of a ratio of means over samples."""
    return ratio_of(state, "sparsity")
