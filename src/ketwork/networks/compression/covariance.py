"""Streaming centred second moments of rows: n, the means and Σ (x − x̄)(y − ȳ)ᵀ, which add up in any order.

Each batch is centred by its own mean before its products are taken, so that float32 products are enough even
where the mean is large; sums and means are float64 (Chan, Golub and LeVeque 1983, Am. Stat. 37, 242).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LONGEST_SUM = 4096  # rows summed in their own precision before the float64 sum takes over


@dataclass
class Scatter:
    """Of n pairs (x, y) the means, (p,) and (q,), and Σ (x − x̄)(y − ȳ)ᵀ, (p, q); all float64.

    >>> rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]])
    >>> scatter = Scatter.of(rows[:1])
    >>> scatter += Scatter.of(rows[1:])
    >>> scatter.left, scatter.covariance()
    (tensor([2., 4.], dtype=torch.float64), tensor([[2.6667, 4.6667],
            [4.6667, 8.6667]], dtype=torch.float64))
    """

    n: int
    left: Tensor
    right: Tensor
    total: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor | None = None) -> Scatter:
        """The sums of rows x (n, p) with rows y (n, q); of x with itself where there is no y. O(n p q)."""
        n = len(x)
        x, left = _centred(x)
        y, right = (x, left) if y is None else _centred(y)
        total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
        for a, b in zip(x.split(_LONGEST_SUM), y.split(_LONGEST_SUM), strict=True):
            total += a.T @ b
        return cls(n, left, right, total)

    def __iadd__(self, other: Scatter) -> Scatter:
        n = self.n + other.n
        if other.n:
            share = other.n / n
            left, right = other.left - self.left, other.right - self.right
            self.total += other.total + torch.outer(left, right) * (self.n * share)
            self.left, self.right, self.n = self.left + share * left, self.right + share * right, n
        return self

    def __add__(self, other: Scatter) -> Scatter:
        total = Scatter(self.n, self.left, self.right, self.total.clone())
        total += other
        return total

    def of_both(self, index: Tensor) -> Scatter:
        """Of these entries of x, where y is x."""
        return Scatter(self.n, self.left[index], self.right[index], self.total[index][:, index])

    def through(self, matrix: Tensor) -> Scatter:
        """Of matrix x, where y is x."""
        left = matrix @ self.left
        return Scatter(self.n, left, left, matrix @ self.total @ matrix.T)

    def covariance(self) -> Tensor:
        """Their covariance Σ (x − x̄)(y − ȳ)ᵀ / n, (p, q)."""
        return self.total / max(self.n, 1)


def added(total: Scatter | None, part: Scatter) -> Scatter:
    """The sum so far, which takes the part up, or the part where there is none yet."""
    if total is None:
        return part
    total += part
    return total


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    if rows.dtype.itemsize < 4:
        rows = rows.float()
    mean = rows.mean(dim=0, dtype=torch.float64) if len(rows) else rows.new_zeros(rows.shape[1]).double()
    return rows - mean.to(rows.dtype), mean
