"""What the arguments of a study must be, and what a checkpoint knows of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ketwork.networks.activations import Generate
from ketwork.networks.moments import NORMALIZATIONS


def check_arguments(normalize: str, batch_size: int, max_samples: int | None, compare: bool | float) -> None:
    """Refuses arguments that are not what they must be, before the pass."""
    if not isinstance(compare, bool) and not (isinstance(compare, int | float) and 0 <= compare < math.inf):
        raise ValueError(
            f"Argument `compare` must be True, False or a number of seconds for pairs of layers, but is {compare!r}."
        )
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"Argument `normalize` must be one of {NORMALIZATIONS}, but is {normalize!r}.")
    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but is {batch_size}.")
    if max_samples is not None and max_samples < 1:
        raise ValueError(
            f"Argument `max_samples` must be at least 1, but is {max_samples}. Leave it out for all."
        )


def plain(argument: Any) -> Any:
    """A plain value that tells arguments of different kinds apart, the same in every process."""
    if isinstance(argument, Generate):
        return argument.settings
    if argument is None or isinstance(argument, bool | int | str):
        return argument
    if isinstance(argument, Mapping):
        return {str(name): plain(value) for name, value in argument.items()}
    return "a function" if callable(argument) else "an array"
