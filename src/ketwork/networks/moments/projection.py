"""A seeded random projection of features that keeps inner products of samples, in one number a feature.

A count sketch (Charikar, Chen, Farach-Colton 2002; Weinberger et al. 2009, arXiv 0902.2206): each feature goes,
with a random sign, into one of k buckets. ⟨Sx, Sy⟩ has mean ⟨x, y⟩ and variance at most 2‖x‖²‖y‖²/k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Projection:
    """d features into k buckets: `buckets` (d,) and `signs` (d,)."""

    buckets: Tensor
    signs: Tensor
    k: int

    @classmethod
    def draw(cls, d: int, k: int, seed: int) -> Projection:
        """The projection of d features that a seed gives: layers of one width share it, so equal layers stay equal."""
        generator = torch.Generator().manual_seed(seed + d)
        buckets = torch.randperm(-(-d // k) * k, generator=generator)[:d] % k
        signs = torch.randint(0, 2, (d,), generator=generator) * 2 - 1
        return cls(buckets, signs, k)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows (n, d) as rows (n, k). Cost O(n d)."""
        signed = rows * self.signs.to(rows)
        return rows.new_zeros(len(rows), self.k).index_add_(1, self.buckets.to(rows.device), signed)
