"""Entropies of Gram matrices that hooks leave behind, computed together: those of all layers and of one size.

To have a GPU's eigenvalues is to wait for them, and small matrices are decomposed fastest in a stack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

MOST_WAITING = 64 << 20
"""Bytes of Gram matrices that wait, of all layers together, until the forward pass is over; more do not wait."""


@dataclass
class EntropySolver:
    """Gram matrices that wait for their entropies, each stack with where these go."""

    _parts: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    _bytes: int = 0

    def add(self, grams: Tensor, result: Tensor, places: Tensor) -> None:
        """Takes in matrices (n, s, s) whose entropies go to these places (n,) of `result`, which is on the host."""
        self._parts.append((grams, result, places))
        self._bytes += grams.nbytes
        if self._bytes > MOST_WAITING:
            self.run()

    def run(self) -> None:
        """Computes the entropies of all that wait. Cost O(s³) each."""
        parts, self._parts, self._bytes = self._parts, [], 0
        alike: dict[tuple[torch.device, torch.dtype, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
        for part in parts:
            grams = part[0]
            alike.setdefault((grams.device, grams.dtype, grams.shape[1]), []).append(part)
        for some in alike.values():
            finite = torch.nan_to_num(torch.cat([grams for grams, _, _ in some]), 0.0, 0.0, 0.0)
            entropies = entropies_of(torch.linalg.eigvalsh(finite)).cpu()
            for (_, result, places), own in zip(
                some, entropies.split([len(p) for _, _, p in some]), strict=True
            ):
                result[places] = own

    def clear(self) -> None:
        """Forgets all that waits."""
        self._parts, self._bytes = [], 0


def entropies_of(weights: Tensor) -> Tensor:
    """−Σ λ log₂ λ of eigenvalues (n, s) over their sums, in bits, (n,)."""
    weights = weights.clamp(min=0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return (-torch.special.xlogy(weights, weights).sum(dim=-1) / math.log(2)).clamp(min=0)
