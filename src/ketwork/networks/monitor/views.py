"""LiDAR: how many dimensions tell samples apart, where the probe set has several views of each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.quantum import Estimate

DELTA = 1e-4
"""The ridge added to the covariance within samples, as published."""

_BLOCKS = 8  # of samples, for the jackknife


@dataclass(frozen=True)
class Views:
    """One row a view, (n · views, d), the views of one sample next to each other."""

    rows: Tensor
    views: int

    def lidar(self) -> Estimate:
        """2^S of the between-sample spectrum whitened by the within-sample covariance (Thilak et al. 2023).

        Standard error: jackknife over 8 blocks of samples, so 9 decompositions, O(d³) each. NaN for fewer samples.
        """
        grouped = self.rows.unflatten(0, (-1, self.views)).double()
        grouped = grouped[torch.isfinite(grouped).all(dim=(1, 2))]
        n = len(grouped)
        if n < 2 * _BLOCKS or self.views < 2:
            return Estimate()
        value = lidar(grouped)
        block = torch.arange(n) % _BLOCKS
        others = torch.tensor([lidar(grouped[block != i]) for i in range(_BLOCKS)], dtype=torch.float64)
        variance = (_BLOCKS - 1) / _BLOCKS * float((others - others.mean()).square().sum())
        return Estimate(value, math.sqrt(variance))


def lidar(grouped: Tensor) -> float:
    """The number for rows (n, views, d), float64.

    >>> apart = torch.eye(3).double()[:, None].expand(3, 2, 3)   # three samples, whose two views agree
    >>> round(lidar(apart), 6)
    2.0
    """
    n, q, d = grouped.shape
    means = grouped.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (grouped - means[:, None]).flatten(0, 1)
    sigma = within.mT @ within / (n * (q - 1)) + DELTA * torch.eye(
        d, dtype=grouped.dtype, device=grouped.device
    )
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(sigma), between.mT, upper=False)
    small = whitened.mT @ whitened if n < d else whitened @ whitened.mT
    values = torch.linalg.eigvalsh(small).clamp(min=0)
    shares = values / values.sum()
    return math.exp(float(-torch.special.xlogy(shares, shares).sum())) if float(values.sum()) > 0 else 1.0
