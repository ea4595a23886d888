"""Draws from Born's rule."""

import torch
from torch import Tensor


def draw(p: Tensor, shots: int | None, generator: torch.Generator | None) -> Tensor:
    """Outcomes (*batch,) or (*batch, shots), int64, with probabilities p (*batch, n).

    By inverse distribution function in double precision: any number of outcomes and any batch, even empty;
    an outcome of probability 0 is never drawn.
    """
    steps = p.detach().double().clamp(min=0).cumsum(-1)  # (*batch, n)
    steps = steps / steps[..., -1:]
    size = (*p.shape[:-1], 1 if shots is None else shots)
    u = torch.rand(size, generator=generator, dtype=steps.dtype, device=steps.device)
    outcomes = torch.searchsorted(steps.contiguous(), u, right=True)
    return outcomes.squeeze(-1) if shots is None else outcomes
