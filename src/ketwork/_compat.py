"""Names of version 0.1 that go on working: each warns, and names the new one. CHANGELOG.md has the whole table."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function be called with the old names of its arguments, `old="new"`.

    >>> @renamed(samples="max_samples")
    ... def study(max_samples=None):
    ...     return max_samples
    >>> with warnings.catch_warnings(record=True, action="always") as seen:
    ...     study(samples=3)
    3
    >>> print(seen[0].message)
    Argument `samples` of `study` is now called `max_samples`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> R:
            for old in names.keys() & given.keys():
                new = names[old]
                if new in given:
                    raise TypeError(
                        f"Argument `{old}` is the old name of `{new}`, which was given too. Give `{new}` alone."
                    )
                moved(f"Argument `{old}` of `{function.__name__}` is now called `{new}`.", level=3)
                given[new] = given.pop(old)
            return function(*args, **given)

        return call

    return decorate


def moved(message: str, level: int = 2) -> None:
    """Warns of an old way of calling; `level` counts the frames up to the user's line."""
    warnings.warn(message, FutureWarning, stacklevel=level + 1)
