"""By how much the random projection of wide layers may have changed a comparison's numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FURTHER = 1 / (math.sqrt(2) - 1)
"""What all doublings of a width k still change, over what the last one did, of a number that is off by 1/√k."""


def uncertain(values: Tensor, halved: Tensor, scattered: bool) -> Tensor:
    """How far a projection may have moved values, from those of a projection to half the width.

    One pair's change may be small by luck, so the changes of all pairs are pooled, in units of 1 − v² as the
    errors of correlations go; equal layers, which stay equal, have no error. Where the projection does not scatter the
    values but lowers all, as of singular values and of fits, all larger widths add up to more than the last change.
    """
    change, unit = (values - halved).abs(), (1 - values.square()).clamp(min=0)
    pooled = torch.where(unit > 1e-6, (change / unit).square(), torch.nan).nanmean().sqrt().nan_to_num()
    return torch.maximum(change, pooled * unit) * (1.0 if scattered else _FURTHER)
