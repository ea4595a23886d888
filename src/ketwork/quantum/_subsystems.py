"""Index work for tensor products: splitting a space in two, partial trace, partial transpose."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def rest(dims: Sequence[int], keep: Sequence[int]) -> tuple[int, ...]:
    """The subsystems that are not kept."""
    return tuple(i for i in range(len(dims)) if i not in keep)


def split(x: Tensor, dims: Sequence[int], keep: Sequence[int]) -> Tensor:
    """(*batch, d) as (*batch, d_rest, d_keep), the kept subsystems last."""
    lead = x.ndim - 1
    parts = x.reshape(*x.shape[:-1], *dims)
    others = rest(dims, keep)
    order = [*range(lead), *(lead + i for i in others), *(lead + i for i in keep)]
    d_keep = math.prod(dims[i] for i in keep)
    return parts.permute(order).reshape(*x.shape[:-1], math.prod(dims) // d_keep, d_keep)


def partial_trace(m: Tensor, dims: Sequence[int], keep: Sequence[int]) -> Tensor:
    """(*batch, d, d) traced over what is not kept: (*batch, d_keep, d_keep)."""
    rows = split(m.mT, dims, keep)  # (*batch, d column, d_rest, d_keep): the row index split
    both = split(rows.movedim(-3, -1), dims, keep)  # (*batch, rest row, keep row, rest column, keep column)
    return torch.einsum("...rirj->...ij", both)


def partial_transpose(m: Tensor, dims: Sequence[int], part: Sequence[int]) -> Tensor:
    """(*batch, d, d) with the row and column indices of `part` exchanged."""
    lead, n = m.ndim - 2, len(dims)
    t = m.reshape(*m.shape[:-2], *dims, *dims)
    order = list(range(t.ndim))
    for i in part:
        order[lead + i], order[lead + n + i] = lead + n + i, lead + i
    return t.permute(order).reshape(m.shape)
