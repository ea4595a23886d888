"""NaN and infinite values of a batch: one layer's own, which is then skipped, or a sample's, an error."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.activations import Activation, Batch, Key, tensors


@dataclass(frozen=True)
class Bad:
    """A layer's values that are not finite: the `samples` of the batch that have them, `masked` where all are −∞."""

    samples: list[int]
    masked: bool

    @classmethod
    def from_activation(cls, activation: Activation, samples: list[int]) -> Bad:
        """Those of an activation, of whose samples these have some."""
        values = activation.values
        if activation.present is not None:
            values = values[activation.present]
        odd = values[~torch.isfinite(values)]
        return cls(samples, not odd.is_complex() and bool((odd == -torch.inf).all()))


@dataclass
class BadValues:
    """What a batch's layers put out that is not finite, in the order in which they ran."""

    order: list[Key] = field(default_factory=list)
    bad: dict[Key, Bad] = field(default_factory=dict)

    def clear(self) -> None:
        """Forgets the batch before."""
        self.order.clear()
        self.bad.clear()

    def of_layers(self, batch: Batch, before: Collection[Key]) -> bool:
        """Whether they are the layers' own, while the data and other layers are finite.

        So they are where these layers had no finite batch `before`, where they are masked out (−∞), or where a later
        layer is finite or there is none. Else they come from a sample, and spread through all that follows.
        """
        if not self.bad or not all(_finite(tensor) for tensor in tensors(batch.content)):
            return False
        if len(self.bad) == len(self.order):
            return False
        if not any(key in before for key in self.bad) or all(bad.masked for bad in self.bad.values()):
            return True
        first = min(self.order.index(key) for key in self.bad)
        rest = self.order[first:]
        return len(rest) == 1 or any(key not in self.bad for key in rest)

    def words(self, key: Key, batch: int, start: int) -> str:
        """What a layer put out where, in words; `start` is the place of the batch's first sample in the data."""
        samples = self.bad[key].samples
        places = ", ".join(str(start + i) for i in samples[:5])
        more = f" and {len(samples) - 5} more" if len(samples) > 5 else ""
        values = "−∞" if self.bad[key].masked else "NaN or infinite values"
        return f"{values} in batch {batch}, sample {places}{more} (counted from 0)"


def _finite(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())
