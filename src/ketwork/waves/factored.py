"""Log-derivatives of dense layers, kept as products: their Gram matrix and steps without the derivatives themselves.

A layer's derivative at a configuration is δ ⊗ h, what comes back times what went in, so that the n × P rows O of n
configurations have OOᵀ = Σ_layers (ΔΔᵀ)∘(HHᵀ) at n²·(a + b) in place of n²·a·b, and neither they nor copies of them
are ever held.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Factors = list[tuple[Tensor, Tensor | None]]
"""For each parameter, in order: δ (n, a) and h (n, b) of a matrix (a, b), or the derivative itself (n, a) and None."""


def products(factors: Factors) -> Tensor:
    """The derivatives (n, P)."""
    rows = [one if two is None else (one[:, :, None] * two[:, None]).flatten(1) for one, two in factors]
    return torch.cat([row.reshape(len(row), -1) for row in rows], 1)


@dataclass(frozen=True, eq=False)
class FactoredRows:
    """√w (O − ⟨O⟩) of real derivatives O (n, P) given by factors: what `centered` gives of their products.

    Multiplies vectors from both sides (`rows @ v`, `rows.back(y)`) and has a Gram matrix; `dense()` is all of it.
    """

    factors: Factors
    weights: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(n, P)."""
        return len(self.weights), sum(
            one.shape[1] * (1 if two is None else two.shape[1]) for one, two in self.factors
        )

    def gram(self) -> Tensor:
        """OOᵀ (n, n)."""
        total = sum(
            one @ one.T if two is None else (one @ one.T) * (two @ two.T) for one, two in self.factors
        )
        assert isinstance(total, Tensor)
        mean = total @ self.weights
        total = total - mean[:, None] - mean[None] + self.weights @ mean
        root = self.weights.sqrt()
        return root[:, None] * total * root[None]

    def __matmul__(self, vector: Tensor) -> Tensor:
        """O v (n,)."""
        result, start = torch.zeros_like(self.weights), 0
        for one, two in self.factors:
            width = one.shape[1] * (1 if two is None else two.shape[1])
            part = vector[start : start + width]
            result = result + (
                one @ part if two is None else ((one @ part.reshape(one.shape[1], -1)) * two).sum(1)
            )
            start += width
        return self.weights.sqrt() * (result - self.weights @ result)

    def back(self, values: Tensor) -> Tensor:
        """Oᵀ y (P,)."""
        y = self.weights.sqrt() * values
        y = y - self.weights * y.sum()
        return torch.cat(
            [
                one.T @ y if two is None else ((one * y[:, None]).T @ two).flatten()
                for one, two in self.factors
            ]
        )

    def dense(self) -> Tensor:
        """The rows (n, P)."""
        o = products(self.factors)
        return self.weights.sqrt()[:, None] * (o - self.weights @ o)
