"""Which positions of a sample are sinks: their activations are far longer than those of the others.

Language models put massive activations at a few positions, the first above all, where attention that has nothing to
look for rests (Xiao et al. 2024, arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762).
"""

from __future__ import annotations

import torch
from torch import Tensor

MULTIPLE = 100.0
"""A position is a sink where ‖a‖² is more than this times the median over its sample's positions."""


def are_sinks(squares: Tensor) -> Tensor:
    """Which positions are sinks, (N, T), by ‖a‖² (N, T) of samples and positions, NaN where there is none.

    Zero vectors do not count in the median. Of an even number of positions that is the lower one of the middle. Each
    sample is judged by its own, so that batches and other samples change nothing. Cost O(N T).

    >>> are_sinks(torch.tensor([[900.0, 1.0, 2.0, 3.0], [4.0, 5.0, 0.0, float("nan")]])).tolist()
    [[True, False, False, False], [False, False, False, False]]
    """
    there = squares > 0
    if not there.numel():
        return there
    medians = torch.where(there, squares, torch.nan).nanmedian(dim=1, keepdim=True).values
    return there & (squares > MULTIPLE * medians)
