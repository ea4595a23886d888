"""What a measure adds up itself over all activation vectors of a layer, beside the sums that every layer has."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.activations import are_sinks
from ketwork.networks.moments.positions import Positions
from ketwork.records import Kinds


@dataclass(frozen=True)
class Vectors:
    """The activation vectors of one batch at one layer: positions that exist, of samples that are finite.

    `rows` (n, d) as the network put them out, `samples` (n,) tells those of one sample, which stand together, from
    those of another; `lengths` (n,) are their norms and `positions` their places, where these are known.
    """

    rows: Tensor
    samples: Tensor
    lengths: Tensor | None = None
    positions: Positions | None = None

    @cached_property
    def squares(self) -> Tensor:
        """‖a‖² of each vector, (n,), float64."""
        if self.lengths is None:
            return torch.linalg.vector_norm(self.rows, dim=1).double().square()
        return self.lengths.double().square()

    @property
    def owners(self) -> Tensor:
        """The sample of each vector, (n,), counted from 0; some may have none."""
        return self._grid.owners

    @property
    def counts(self) -> Tensor:
        """How many vectors each sample has, (N,)."""
        return self._grid.counts

    @property
    def places(self) -> Tensor:
        """The place of each vector among those of its sample, (n,)."""
        return self._grid.places

    @property
    def single(self) -> bool:
        """Whether each sample has one vector, certainly."""
        return self._grid.present is None and self._grid.shape[1] == 1

    @cached_property
    def sinks(self) -> Tensor:
        """Which vectors are far longer than the median of their sample, (n,), see `are_sinks`."""
        grid, squares = self._grid, self._grid.grid(self.squares)
        if grid.present is not None:
            squares = torch.where(grid.present, squares, torch.nan)
        return grid.rows(are_sinks(squares))

    @cached_property
    def _grid(self) -> Positions:
        if self.positions is not None:
            return self.positions
        counts = self.samples.unique_consecutive(return_counts=True)[1]
        places = torch.arange(int(counts.max()) if len(counts) else 0, device=counts.device)
        present = places < counts[:, None]
        return Positions((len(counts), len(places)), present, counts.device)


class LayerSum(Kinds):
    """A sum over a layer's vectors that batches, processes and studies add up; a record, so that files hold it.

    A subclass is a dataclass of numbers and tensors, declared with the measure that is computed from it, as
    `class ZeroCount(LayerSum, kind="zero_count")`.
    """

    @classmethod
    @abstractmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """The sum over one batch, inside the hook: what it keeps of the tensors must be copies.

        Its numbers may be tensors without axes: they are read together once the network has run (`read_numbers`).
        """

    @abstractmethod
    def __iadd__(self, other: Self) -> Self:
        """Adds the sum over other vectors."""
