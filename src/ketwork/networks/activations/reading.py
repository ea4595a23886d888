"""`Reading`: how activations are read, where the usual way is not right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ketwork.networks.activations.axes import FeatureAxis
from ketwork.networks.activations.captures import CALLS
from ketwork.networks.activations.info import LayerInfo


class HasInfo(Protocol):
    """A layer of a study."""

    @property
    def info(self) -> LayerInfo:
        """Where in its module's output its activation stands."""


@dataclass(frozen=True)
class Reading:
    """How the layers' activations are read.

    Args:
        calls: `"separate"` gives each call of a module in one forward pass its own row, `"pooled"` one row.
        feature_axis: the axis of features where the choice by module type is wrong: an axis, a mapping
            from layer names to axes, or a callable (name, module, output) -> axis.
        axes: a study of the network, whose layers' axes are taken over. None finds them by running a few samples of the
            first batch again in another order, see `Layout`.
        skip_bad: leave out, and count, samples with NaN or infinite activations instead of stopping.
        device: where to run; None leaves the network where it is. It goes back there afterwards.
    """

    calls: str = "separate"
    feature_axis: FeatureAxis = None
    axes: Iterable[HasInfo] | None = None
    skip_bad: bool = False
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if self.calls not in CALLS:
            raise ValueError(f"Argument `calls` must be one of {CALLS}, but is {self.calls!r}.")

    @property
    def for_capture(self) -> dict[str, Any]:
        """The arguments of `capture` that say how outputs are read."""
        return {"calls": self.calls, "feature_axis": self.feature_axis, "axes": self.layers}

    @property
    def layers(self) -> list[LayerInfo] | None:
        """The layers whose axes are known."""
        return None if self.axes is None else [layer.info for layer in self.axes]
