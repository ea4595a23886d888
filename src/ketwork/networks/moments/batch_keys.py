"""The random keys of a batch's samples, and what follows from them, drawn on the host once for all of its layers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class BatchKeys:
    """A key in [0, 1) for each of N samples, `values` (N,) on the host."""

    values: Tensor
    _known: dict[Hashable, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def first(self, most: int, below: float) -> Tensor:
        """The samples of the `most` smallest keys, of those `below`, in the order of their keys, on the host."""
        known = self._known.get(("first", most, below))
        if known is None:
            some = (self.values < below).nonzero().squeeze(1)
            known = some[self.values[some].argsort(stable=True)[:most]]
            self._known["first", most, below] = known
        return known

    def on(self, device: torch.device, samples: Tensor | None = None) -> Tensor:
        """Numbers of samples, which are on the host, on a device; None: the keys."""
        what = self.values if samples is None else samples
        if device == what.device:
            return what
        place = (device, id(what))
        if place not in self._known:
            self._known["of", id(what)] = what  # so that no other has its id
            self._known[place] = what.to(device)
        return self._known[place]

    def orders(self, samples: Tensor | None, t: int, device: torch.device) -> Tensor:
        """Numbers that put t places of these samples, which are on the host, at random, (m, t); None: of all samples.

        A sample's key draws them, so that they are the same in every layer, whatever batch it came in.
        """
        place = ("orders", None if samples is None else id(samples), t)
        order = self._known.get(place)
        if order is None:
            keys = self.values if samples is None else self.values[samples]
            order = torch.zeros(len(keys), t)
            generator = torch.Generator()
            for row, key in zip(order, keys.tolist(), strict=True):
                torch.rand(t, generator=generator.manual_seed(int(key * 2**53)), out=row)
            self._known[place] = order
            if samples is not None:
                self._known["of", id(samples)] = samples
        return self.on(device, order)
