"""Which of a batch's vectors exist, found once for all layers that have the same positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.activations import pieces


@dataclass(frozen=True, eq=False)
class Positions:
    """The places (N, T) of N samples' vectors; `present` (N, T) says where one exists, None: everywhere."""

    shape: tuple[int, int]
    present: Tensor | None
    device: torch.device

    @classmethod
    def of(cls, values: Tensor, present: Tensor | None = None) -> Self:
        """Those of an activation (N, T, d)."""
        return cls((values.shape[0], values.shape[1]), present, values.device)

    @cached_property
    def owners(self) -> Tensor:
        """The sample of each existing vector, (n,), ascending."""
        n, t = self.shape
        if self._index is None:
            return torch.arange(n, device=self.device).repeat_interleave(t)
        return self._index.div(t, rounding_mode="floor")

    @cached_property
    def counts(self) -> Tensor:
        """How many vectors each sample has, (N,)."""
        n, t = self.shape
        if self.present is None:
            return torch.full((n,), t, dtype=torch.int64, device=self.device)
        return self.present.sum(dim=1)

    @cached_property
    def order(self) -> Tensor:
        """The places of each sample, (N, T), where a vector exists first."""
        n, t = self.shape
        if self.present is None:
            return torch.arange(t, device=self.device).expand(n, t)
        return self.present.byte().argsort(dim=1, descending=True, stable=True)

    @cached_property
    def on_host(self) -> Tensor | None:
        """`present` on the host."""
        return None if self.present is None else self.present.cpu()

    @cached_property
    def sizes(self) -> Tensor:
        """`counts` on the host, (N,)."""
        return self.counts.cpu() if self.on_host is None else self.on_host.sum(dim=1)

    @cached_property
    def places(self) -> Tensor:
        """The place of each existing vector among those of its sample, (n,)."""
        n, t = self.shape
        if self.present is None:
            return torch.arange(t, device=self.device).repeat(n)
        return self.rows(self.present.long().cumsum(dim=1) - 1)

    def prepared(self) -> Self:
        """The same, with all that must be read off the mask's device."""
        _ = self._index, self.sizes, self.on_host
        return self

    def rows(self, values: Tensor) -> Tensor:
        """The existing vectors (n, *) of (N, T, *), in memory of their own where not all exist."""
        flat = values.flatten(0, 1)
        return flat if self._index is None else flat.index_select(0, self._index)

    def grid(self, numbers: Tensor) -> Tensor:
        """A number of each existing vector (n,) at its place, (N, T), 0 elsewhere."""
        n, t = self.shape
        if self._index is None:
            return numbers.reshape(n, t)
        return numbers.new_zeros(n * t).index_copy_(0, self._index, numbers).reshape(n, t)

    def sums(self, rows: Tensor) -> Tensor:
        """Σ of the rows (n, d) of each sample, (N, d), in 64 bits a number: always in the same order."""
        n, t = self.shape
        if self._index is None:
            return rows.reshape(n, t, -1).sum(dim=1, dtype=wide(rows.dtype))
        padded = rows.new_zeros(n * t, rows.shape[1]).index_copy_(0, self._index, rows)
        return padded.reshape(n, t, -1).sum(dim=1, dtype=wide(rows.dtype))

    @cached_property
    def _index(self) -> Tensor | None:
        return None if self.present is None else self.present.flatten().nonzero().squeeze(1)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums: 64 bits a number."""
    return torch.complex128 if dtype.is_complex else torch.float64


def total(rows: Tensor) -> Tensor:
    """Σ of rows (n, d), (d,), in 64 bits a number."""
    result = torch.zeros(rows.shape[1], dtype=wide(rows.dtype), device=rows.device)
    for some in pieces(rows):
        result += some.sum(dim=0, dtype=result.dtype)
    return result
