"""By how much the random projection of wide layers may have changed a comparison's numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def uncertain(values: Tensor, halved: Tensor) -> Tensor:
    """How far a projection may have moved values, from those of a projection to half the width.

    One pair's change may be small by luck, so the changes of all pairs are pooled, in units of 1 − v² as the
    errors of correlations go; equal layers, which stay equal, have no error.
    """
    change, unit = (values - halved).abs(), (1 - values.square()).clamp(min=0)
    pooled = torch.where(unit > 1e-6, (change / unit).square(), torch.nan).nanmean().sqrt().nan_to_num()
    return torch.maximum(change, pooled * unit)
