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
    positions = Positions.of(values, present)
    return pooled_rows(positions.rows(values), positions)


def pooled_rows(rows: Tensor, positions: Positions) -> Tensor:
    """The same of the existing vectors (n, d) alone."""
    if positions.present is None:
        return rows.reshape(*positions.shape, -1).mean(dim=1)
    sums = rows.new_zeros(len(positions.counts), rows.shape[1]).index_add_(0, positions.owners, rows)
    return sums / positions.counts[:, None].clamp(min=1)


def sample_rows(values: Tensor, positions: Positions, *, unit_of: str = UNITS[0], normalize: str) -> Tensor:
    """An activation (N, T, d) as the rows that are compared, in memory of their own.

    `"sample"`: the mean over existing positions, (N, d), 0 where a sample has none; `"position"`: every existing
    position, (n, d); `"flat"`: (N, T·d), 0 where a position does not exist. Complex values become pairs
    of real features. `normalize="state"` scales each row to norm 1; zero rows stay.
    """
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj()).flatten(-2)
    present = positions.present
    if unit_of == "flat":
        rows = values.clone() if present is None else torch.where(present[..., None], values, 0)
        rows = rows.flatten(1)
    else:
        rows = positions.rows(values)
        if unit_of == "sample":
            rows = pooled_rows(rows, positions)
        elif present is None:
            rows = rows.clone()
    return unit(rows)[0] if normalize == "state" else rows


def sample_owners(positions: Positions, *, unit_of: str = UNITS[0]) -> Tensor:
    """Which sample of an activation (N, T, d) each of its `sample_rows` is of, (rows,)."""
    return (
        positions.owners
        if unit_of == "position"
        else torch.arange(positions.shape[0], device=positions.device)
    )
