"""What a measure adds up itself over all activation vectors of a layer, beside the sums that every layer has."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ketwork.networks.activations import are_sinks
from ketwork.records import Kinds


@dataclass(frozen=True)
class Vectors:
    """The activation vectors of one batch at one layer: positions that exist, of samples that are finite.

    `rows` (n, d) as the network put them out, `samples` (n,) tells those of one sample, which stand together, from
    those of another; `lengths` (n,) are their norms, where these are known.
    """

    rows: Tensor
    samples: Tensor
    lengths: Tensor | None = None

    @cached_property
    def squares(self) -> Tensor:
        """‖a‖² of each vector, (n,), float64."""
        if self.lengths is None:
            return torch.linalg.vector_norm(self.rows, dim=1).double().square()
        return self.lengths.double().square()

    @cached_property
    def owners(self) -> Tensor:
        """The sample of each vector, (n,), counted from 0 without gaps."""
        return self._consecutive[0]

    @cached_property
    def counts(self) -> Tensor:
        """How many vectors each sample has, (N,)."""
        return self._consecutive[1]

    @cached_property
    def places(self) -> Tensor:
        """The place of each vector among those of its sample, (n,)."""
        starts = self.counts.cumsum(0) - self.counts
        return torch.arange(len(self.owners), device=self.owners.device) - starts[self.owners]

    @cached_property
    def sinks(self) -> Tensor:
        """Which vectors are far longer than the median of their sample, (n,), see `are_sinks`."""
        n = len(self.counts)
        if n == 0:
            return torch.zeros_like(self.samples, dtype=torch.bool)
        t = int(self.counts.max())
        if n * t == len(self.owners):
            return are_sinks(self.squares.reshape(n, t)).reshape(-1)
        padded = self.squares.new_full((n, t), torch.nan)
        padded[self.owners, self.places] = self.squares
        return are_sinks(padded)[self.owners, self.places]

    @cached_property
    def _consecutive(self) -> tuple[Tensor, Tensor]:
        _, owners, counts = self.samples.unique_consecutive(return_inverse=True, return_counts=True)
        return owners, counts


class LayerSum(Kinds):
    """A sum over a layer's vectors that batches, processes and studies add up; a record, so that files hold it.

    A subclass is a dataclass of numbers and tensors, declared with the measure that is computed from it, as
    `class ZeroCount(LayerSum, kind="zero_count")`.
    """

    @classmethod
    @abstractmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """The sum over one batch, inside the hook: what it keeps of the tensors must be copies."""

    @abstractmethod
    def __iadd__(self, other: Self) -> Self:
        """Adds the sum over other vectors."""
