"""Fingerprints of a tensor along its axes: a few numbers for each row, by which rows are recognized in another pass.

The numbers of row i on axis a are sums of the row's entries with fixed weights, one product of weights for each of the
other axes. Two rows that agree have the same fingerprint; rows that differ have another one, up to a set of measure 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PROJECTIONS = 4

EXACTLY = 5e-3
"""How much less rounding there is between rows at the same places of equal batches."""

Match = Literal["yes", "no", "alike"]


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of one output: its shape, and the rows' numbers (size, K) and norms (size,) for some axes.

    `tolerance` is by how much, relative to its norm, rounding may change a row; `total` (K,) is of the whole.
    """

    shape: tuple[int, ...]
    rows: dict[int, Tensor]
    norms: dict[int, Tensor]
    total: Tensor
    norm: float
    tolerance: float

    @classmethod
    def from_tensor(cls, tensor: Tensor, n: int) -> Fingerprint:
        """That of an output of n samples, along the axes on which they may stand. Cost: O(K · size) an axis."""
        tolerance = 6e-2 if torch.finfo(tensor.dtype).bits < 32 else 2e-3
        shape = tuple(tensor.shape)
        values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
        values = torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        rows, norms = {}, {}
        for axis, size in enumerate(shape):
            if size and size % n == 0:
                rows[axis] = _rows(values, axis).double().cpu()
                others = values.movedim(axis, 0).flatten(1) if values.ndim > 1 else values[:, None]
                norms[axis] = torch.linalg.vector_norm(others, dim=1).double().cpu()
        total = _rows(values[None], 0)[0].double().cpu() if values.numel() else torch.zeros(PROJECTIONS)
        return cls(shape, rows, norms, total, float(torch.linalg.vector_norm(values)), tolerance)

    def same(self, other: Fingerprint, exactly: bool = False) -> bool:
        """Whether the other is of the same values, up to rounding.

        `exactly` allows for less of it: rows that stand at the same places of equal batches are rounded alike.
        """
        distance = float((self.total - other.total).norm())
        tolerance = self.tolerance * (EXACTLY if exactly else 1)
        return self.shape == other.shape and distance <= tolerance * PROJECTIONS**0.5 * self.norm

    def follows(self, earlier: Fingerprint, axis: int, places: Sequence[int]) -> Match:
        """Whether the rows on an axis are those that stood at these places in an earlier pass.

        `"alike"` where they are, but would be in another order too.
        """
        index = torch.tensor(places)
        expected, size = earlier.rows[axis][index], earlier.norms[axis][index]
        rounding = self.tolerance * PROJECTIONS**0.5 * (size + 1e-3 * size.mean())
        off = torch.linalg.vector_norm(self.rows[axis] - expected, dim=1)
        if bool((off > rounding).any()):
            return "no"
        rolled = expected.roll(1, 0)
        other = torch.linalg.vector_norm(self.rows[axis] - rolled, dim=1)
        return "alike" if bool((other <= 3 * rounding).all()) else "yes"


def totals(tensor: Tensor) -> Tensor:
    """A few numbers (K,) of a tensor as a whole, on its device: sums with fixed weights. Cost: O(K · size)."""
    values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    return _rows(values[None], 0)[0] if values.numel() else values.new_zeros(PROJECTIONS)


def _rows(values: Tensor, axis: int) -> Tensor:
    """The numbers (size, K) of the rows on an axis."""
    values = values.movedim(axis, 0)
    if values.ndim == 1:
        values = values[:, None]
    axes = [place for place in range(values.ndim + 1) if place != axis][: values.ndim - 1]
    rows = values @ _weights(axes[-1], values.shape[-1], values)
    for place, name in zip(range(rows.ndim - 2, 0, -1), reversed(axes[:-1]), strict=True):
        rows = (rows * _weights(name, rows.shape[place], values)).sum(dim=place)
    return rows


def _weights(axis: int, size: int, like: Tensor) -> Tensor:
    """Fixed weights (size, K) of mean square 1, those of a longer axis beginning with those of a shorter."""
    i = torch.arange(1, size + 1, dtype=torch.float64)[:, None]
    k = torch.arange(1, PROJECTIONS + 1, dtype=torch.float64)
    phase = 0.7548776662 * (k + 3.1) * (axis + 1.3) * i * (i + 0.5699)
    return (2**0.5 * torch.sin(phase)).to(like)
