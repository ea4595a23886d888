"""What a measure adds up itself over all activation vectors of a layer, beside the sums that every layer has."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from ketwork.records import Kinds


@dataclass(frozen=True)
class Vectors:
    """The activation vectors of one batch at one layer: positions that exist, of samples that are finite.

    `rows` (n, d) as the network put them out, `samples` (n,) tells those of one sample from those of another.
    """

    rows: Tensor
    samples: Tensor


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
