"""Means over positions whose errors count samples, in sums that add up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ketwork.networks.moments.sums import LayerSum, Vectors
from ketwork.quantum import Estimate
from ketwork.records import Count


@dataclass
class SampleRatio(LayerSum, kind="sample_ratio"):
    """Of N samples with nᵢ of a whole and xᵢ of a part (or a sum over it): N, Σ n, Σ x, and Σ n², Σ nx, Σ x².

    The ratio Σ x/Σ n is a mean over positions where n counts them, and a share where it is their weight.
    """

    samples: Count = 0
    total: float = 0.0
    part: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    part_squares: float = 0.0

    @classmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """Of vectors alone it is the number of them: every position has the value 1."""
        return cls.from_values(torch.ones_like(vectors.samples, dtype=torch.float64), vectors.samples)

    @classmethod
    def from_values(cls, values: Tensor, samples: Tensor, weights: Tensor | None = None) -> Self:
        """The mean of values (n,) of positions, of weight 1 or `weights`; `samples` (n,), in order, says whose."""
        weights = torch.ones_like(values, dtype=torch.float64) if weights is None else weights.double()
        return cls.from_samples(Vectors(values[:, None], samples), values.double(), weights)

    @classmethod
    def from_samples(cls, vectors: Vectors, values: Tensor, weights: Tensor) -> Self:
        """The same of float64 values and weights (n,) of vectors; its numbers are tensors still (`read_numbers`)."""
        owners, counts = vectors.owners, vectors.counts
        n = weights.new_zeros(len(counts)).index_add_(0, owners, weights)
        x = weights.new_zeros(len(counts)).index_add_(0, owners, values * weights)
        return cls((counts > 0).sum(), n.sum(), x.sum(), n @ n, n @ x, x @ x)  # type: ignore[arg-type]

    def __iadd__(self, other: Self) -> Self:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    @property
    def estimate(self) -> Estimate:
        """Σ x/Σ n, with the standard error of a ratio of means over samples."""
        if self.total == 0:
            return Estimate()
        ratio = self.part / self.total
        if self.samples < 2:
            return Estimate(ratio)
        residual = self.part_squares - 2 * ratio * self.products + ratio**2 * self.squares
        variance = max(residual, 0.0) * self.samples / (self.samples - 1)
        return Estimate(ratio, math.sqrt(variance) / self.total)
