"""How unevenly samples share in a layer's sums: what says how many independent samples these are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass
class Spread:
    """Sums over all samples i with nᵢ kets of weight wᵢ and length sᵢ in all: Σ n², Σ w², Σ ns, Σ s².

    With Σ n, Σ w and Σ s they give Kish's effective number of samples, (Σ w)²/Σ w², and the exact standard error of
    the mean length.
    """

    kets: float = 0.0
    weights: float = 0.0
    products: float = 0.0
    lengths: float = 0.0

    @classmethod
    def from_samples(cls, counts: Tensor, weights: Tensor, lengths: Tensor) -> Self:
        """The sums of one batch, each tensor (N,), in float64."""
        sums = torch.stack(
            [
                (counts * counts).sum(),
                (weights * weights).sum(),
                (counts * lengths).sum(),
                (lengths**2).sum(),
            ]
        )
        return cls(*sums.tolist())

    def __iadd__(self, other: Spread) -> Self:
        self.kets += other.kets
        self.weights += other.weights
        self.products += other.products
        self.lengths += other.lengths
        return self
