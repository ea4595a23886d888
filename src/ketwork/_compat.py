"""Names of version 0.1 that go on working: each warns, and names the new one. CHANGELOG.md has the whole table."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(
    groups: Mapping[str, Callable[[Any], Any]] | None = None,
    convert: Mapping[str, Callable[[Any], Any]] | None = None,
    **names: str,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function be called with the old names of its arguments, `old="new"`.

    `old="group.new"` is for an argument that is now a field of the frozen class that the argument `group` takes;
    `groups` has, for each such argument, what makes that class of what was given for it, or of None. `convert` has what
    makes the new value of the old one where the two differ.

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
        defaults = inspect.signature(function).parameters

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> R:
            # Parts of an argument after the argument itself, which may have an old name too.
            for old in sorted((old for old in names if old in given), key=lambda old: "." in names[old]):
                group, _, field = names[old].rpartition(".")
                value = given.pop(old)
                parameter = defaults[names[old].partition(".")[0]]
                if (
                    value is None
                    and parameter.default is not None
                    and "None" not in str(parameter.annotation)
                ):
                    moved(
                        f"Argument `{old}` of `{function.__name__}` is now called `{names[old]}`. "
                        "Leave it out for its default."
                    )
                    continue
                if convert and old in convert:
                    value = convert[old](value)
                if not group:
                    if field in given:
                        raise TypeError(
                            f"Argument `{old}` is the old name of `{field}`, which was given too. Give `{field}` alone."
                        )
                    moved(f"Argument `{old}` of `{function.__name__}` is now called `{field}`.")
                    given[field] = value
                    continue
                options = (groups or {})[group](given.get(group, defaults[group].default))
                if options is None:
                    if value is True:
                        raise ValueError(f"Argument `{old}` needs `{group}` beside it. Give both.")
                    continue  # of something that is not used
                moved(
                    f"Argument `{old}` of `{function.__name__}` is now a part of `{group}`: "
                    f"`{group}={type(options).__name__}(…, {field}=…)`.",
                )
                given[group] = dataclasses.replace(options, **{field: value})
            return function(*args, **given)

        return call

    return decorate


def moved(message: str, level: int = 2) -> None:
    """Warns of an old way of calling; `level` counts the frames up to the user's line."""
    warnings.warn(message, FutureWarning, stacklevel=level + 1)
