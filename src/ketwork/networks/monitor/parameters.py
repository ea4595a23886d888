"""How much each layer's parameters turned since the last look, from a fixed draw of their entries."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from ketwork.networks.activations import select
from ketwork.quantum import Estimate

ENTRIES = 4096
"""Entries that are kept of a layer's parameters; all of a layer that has no more."""


class Parameters:
    """The entries kept of each layer's parameters at the last look.

    A layer's parameters are those of its module and of all modules inside it that are trained.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        self._modules = select(model, "all").chosen
        self._generator = torch.Generator().manual_seed(seed)
        self._places: dict[str, dict[str, Tensor]] = {}
        self._before: dict[str, Tensor] = {}

    def changes(self, layers: Collection[str]) -> dict[str, Estimate]:
        """How far each layer's parameters turned since the last call: sin θ between them then and now.

        With w then and w' now, sin²θ = 1 − ⟨w, w'⟩²/(‖w‖²‖w'‖²): what is left of the change once the part along w is
        taken away, which weight decay alone makes. Of large layers it is estimated from a draw of their entries, and
        has the standard error of the draw. NaN at the first call, and for layers without trained parameters.
        """
        now = {name: self._entries(name) for name in layers if name in self._modules}
        results = {}
        for name, values in now.items():
            before = self._before.get(name)
            known = before is not None and before.shape == values.shape
            results[name] = sine(before, values, self._complete(name)) if known else Estimate()  # type: ignore[arg-type]
        self._before |= now
        return results

    def _entries(self, name: str) -> Tensor:
        parameters = {key: p for key, p in self._modules[name].named_parameters() if p.requires_grad}
        places = self._places.setdefault(name, {})
        total = sum(p.numel() for p in parameters.values())
        for key, parameter in parameters.items():
            n = parameter.numel()
            if key not in places:
                some = torch.randint(n, (math.ceil(ENTRIES * n / total),), generator=self._generator)
                places[key] = torch.arange(n) if total <= ENTRIES else some
        parts = [
            p.detach().reshape(-1)[places[key].to(p.device)].to("cpu", torch.float64)
            for key, p in parameters.items()
        ]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def _complete(self, name: str) -> bool:
        return sum(p.numel() for p in self._modules[name].parameters() if p.requires_grad) <= ENTRIES


def sine(before: Tensor, after: Tensor, complete: bool = True) -> Estimate:
    """The sine of the angle between two vectors (n,), with the standard error of entries drawn from longer ones.

    >>> sine(torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1.0]).double()).value ** 2
    0.5...
    """
    inner, first, second = before @ after, before @ before, after @ after
    if not len(before) or first == 0 or second == 0 or not bool(torch.isfinite(first + second)):
        return Estimate()
    apart = (after - inner / first * before).square()
    square = float(apart.sum() / second)
    if complete or square == 0:
        return Estimate(math.sqrt(square))
    spread = (apart - square * after.square()).square().sum()
    return Estimate(math.sqrt(square), float(spread.sqrt() / second) / (2 * math.sqrt(square)))
