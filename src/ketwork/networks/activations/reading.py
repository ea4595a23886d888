"""`Reading`: how activations are read, where the usual way is not right."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ketwork.networks.activations.axes import FeatureAxis
from ketwork.networks.activations.captures import CALLS


@dataclass(frozen=True)
class Reading:
    """How the layers' activations are read.

    Args:
        calls: `"separate"` gives each call of a module in one forward pass its own row, `"pooled"` one row.
        feature_axis: the axis of features where the choice by module type is wrong: an axis, a mapping
            from layer names to axes, or a callable (name, module, output) -> axis.
        skip_bad: leave out, and count, samples with NaN or infinite activations instead of stopping.
        device: where to run; None leaves the network where it is. It goes back there afterwards.
    """

    calls: str = "separate"
    feature_axis: FeatureAxis = None
    skip_bad: bool = False
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        if self.calls not in CALLS:
            raise ValueError(f"Argument `calls` must be one of {CALLS}, but is {self.calls!r}.")
