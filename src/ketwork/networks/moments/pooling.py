"""An activation as rows: one a sample, one a position, or all positions of a sample side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from ketwork.networks.activations import unit
from ketwork.networks.moments.positions import Positions

UNITS = ("sample", "position", "flat")
"""What is compared: samples with their positions averaged, every position, or samples with positions as features."""


def pooled(values: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the existing positions of each sample, (N, d), of activations (N, T, d); never a view of them."""
    if present is None:
        return values.mean(dim=1)
    owners = torch.arange(len(values), device=values.device).repeat_interleave(values.shape[1])
    return _means(_existing(values, present).flatten(0, 1), owners, present.sum(dim=1))


def pooled_rows(rows: Tensor, positions: Positions) -> Tensor:
    """The same of the existing vectors (n, d) alone."""
    if positions.present is None:
        return rows.reshape(*positions.shape, -1).mean(dim=1)
    return _means(rows, positions.owners, positions.counts)


def sample_rows(values: Tensor, present: Tensor | None, *, unit_of: str = UNITS[0], normalize: str) -> Tensor:
    """An activation (N, T, d) as the rows that are compared, in memory of their own.

    `"sample"`: the mean over existing positions, (N, d), 0 where a sample has none; `"position"`: every existing
    position, (n, d); `"flat"`: (N, T·d), 0 where a position does not exist. Complex values become pairs
    of real features. `normalize="state"` scales each row to norm 1; zero rows stay.
    """
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj()).flatten(-2)
    if unit_of == "position":
        rows = values.flatten(0, 1).clone() if present is None else values[present]
    elif unit_of == "flat":
        rows = values.flatten(1).clone() if present is None else _existing(values, present).flatten(1)
    else:
        rows = pooled(values, present)
    return unit(rows)[0] if normalize == "state" else rows


def sample_owners(values: Tensor, present: Tensor | None, *, unit_of: str = UNITS[0]) -> Tensor:
    """Which sample of an activation (N, T, d) each of its `sample_rows` is of, (rows,)."""
    n, t = values.shape[:2]
    samples = torch.arange(n, device=values.device)
    if unit_of != "position":
        return samples
    samples = samples[:, None].expand(n, t)
    return samples.flatten() if present is None else samples[present]


def _means(rows: Tensor, owners: Tensor, counts: Tensor) -> Tensor:
    sums = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, owners, rows)
    return sums / counts[:, None].clamp(min=1)


def _existing(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present[..., None], values, torch.zeros_like(values))
