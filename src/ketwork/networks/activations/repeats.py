"""Calls that the backward pass makes again (`torch.utils.checkpoint`), and which of the forward pass these were."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.activations.info import Key
from ketwork.networks.activations.masks import PositionMask
from ketwork.networks.activations.row_fingerprints import totals

MOST_VISITS = 2048
"""How many calls are remembered, of all layers together."""

_TOLERANCE = 1e-4  # relative; the same computation gives the same numbers but for the order of sums on a GPU


def in_backward() -> bool:
    """Whether PyTorch's backward pass is running on this thread."""
    return torch._C._current_graph_task_id() != -1


@dataclass
class Visit:
    """One call of a layer in a forward pass; `serial` counts these, `numbers` recognize its output."""

    serial: int
    key: Key
    numbers: Tensor
    shape: tuple[int, ...]
    samples: int
    masks: Mapping[str, PositionMask]
    repeated: bool = False


@dataclass
class Visits:
    """The last calls of forward passes through which gradients may flow."""

    made: int = 0
    _last: deque[Visit] = field(default_factory=lambda: deque(maxlen=MOST_VISITS))

    def add(self, key: Key, output: Tensor, samples: int, masks: Mapping[str, PositionMask]) -> int:
        """Remembers a call by what the module put out; returns its number."""
        self.made += 1
        self._last.append(Visit(self.made, key, totals(output), tuple(output.shape), samples, dict(masks)))
        return self.made

    def match(self, path: str, output: Tensor) -> Visit | None:
        """The call of this module that gave this output: of equal ones the last that was not repeated yet.

        Raises:
            RuntimeError: it may have been one of those that are no longer remembered.
        """
        numbers = totals(output)
        near = [
            visit
            for visit in self._last
            if visit.key[0] == path
            and visit.shape == tuple(output.shape)
            and float((visit.numbers.to(numbers) - numbers).norm()) <= _TOLERANCE * float(numbers.norm())
        ]
        if not near and self.made > MOST_VISITS:
            raise RuntimeError(
                f"Layer {path!r} runs again in the backward pass (torch.utils.checkpoint), but none of the last "
                f"{MOST_VISITS} calls of collapsed layers gave its output. Call `backward` after fewer forward passes."
            )
        if not near:
            return None
        chosen = next((visit for visit in reversed(near) if not visit.repeated), near[-1])
        chosen.repeated = True
        return chosen
