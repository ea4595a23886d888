"""The patches that a convolution reads, as rows of its matrix view: any number of axes, some positions or all.

A patch of c channels and a taps is a row of c · a numbers, the channel changing slowest, as `weight.reshape(m, c·a)`
has
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def axes(conv: Any) -> int:
    """The number of spatial axes of a convolution."""
    return len(conv.kernel_size)


def batched(x: Tensor, conv: Any) -> Tensor:
    """The input (samples, c, *space), with a first axis of 1 where there is one sample without such an axis."""
    return x if x.ndim == axes(conv) + 2 else x.unsqueeze(0)


def windows(x: Tensor, conv: Any) -> Tensor:
    """All patches of a batch as a view (samples, c, *positions, *kernel) of the padded input: no copy but the
    padding."""
    pads = list(conv._reversed_padding_repeated_twice)
    if any(pads):
        x = F.pad(x, pads, mode="constant" if conv.padding_mode == "zeros" else conv.padding_mode)
    n = axes(conv)
    for axis in range(n):
        reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        x = x.unfold(2 + axis, reach, conv.stride[axis])[..., :: conv.dilation[axis]]
    return x


def grid(space: Sequence[int], conv: Any) -> tuple[int, ...]:
    """How many patches there are along each axis of an input of that size."""
    pads, result = conv._reversed_padding_repeated_twice, []
    for axis, length in enumerate(space):
        back = 2 * (axes(conv) - 1 - axis)
        reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
        result.append((length + pads[back] + pads[back + 1] - reach) // conv.stride[axis] + 1)
    return tuple(result)


def positions(x: Tensor, conv: Any) -> int:
    """How many patches a sample of this batch has."""
    return prod(grid(x.shape[2:], conv))


def rows(view: Tensor, conv: Any, places: Tensor | None = None) -> Tensor:
    """The patches as rows (samples · positions, c · a): all, or those at some `places` of the flattened positions."""
    n = axes(conv)
    space = view.shape[2 : 2 + n]
    if places is None:
        picked = (
            view.flatten(2, 1 + n)
            if n == 1
            else view.reshape(*view.shape[:2], prod(space), *view.shape[2 + n :])
        )
    else:
        index = torch.unravel_index(places.to(view.device), space)
        every: Any = (slice(None), slice(None), *index)
        picked = view[every]
    picked = picked.flatten(3)  # (samples, c, P, a)
    return picked.transpose(1, 2).reshape(-1, view.shape[1] * picked.shape[-1])
