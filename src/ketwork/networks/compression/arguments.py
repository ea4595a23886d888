"""The arguments of `compress`, checked: how small, in which cost, and those that have older spellings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ketwork._compat import moved
from ketwork.networks.compression.costs import COSTS

_OLD_COSTS = {"multiply-adds": "macs"}


@dataclass(frozen=True)
class Target:
    """How small: a share of the cost to keep, or how much the predictions or the accuracy may change."""

    cost: str
    keep: float | None
    max_kl: float | None
    max_drop: float | None


def target(cost: str, keep: float | None, max_kl: float | None, max_drop: float | None) -> Target:
    """The target that the arguments name.

    Raises:
        ValueError: not exactly one bound is given, or one is out of its range, or the cost is none of `COSTS`.
    """
    given = {"keep": keep, "max_kl": max_kl, "max_drop": max_drop}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(
            "Exactly one of the arguments `keep`, `max_kl` and `max_drop` must be given, but "
            f"{' and '.join(named) if named else 'none'} was given."
        )
    if keep is not None and not 0 < keep <= 1:
        raise ValueError(f"Argument `keep` must be a share above 0 and up to 1, but is {keep}.")
    for name in ("max_kl", "max_drop"):
        value = given[name]
        if value is not None and not value >= 0:
            raise ValueError(f"Argument `{name}` must be at least 0, but is {value}.")
    if cost in _OLD_COSTS:
        moved(f"Argument `cost={cost!r}` of `compress` is now called {_OLD_COSTS[cost]!r}.", level=4)
        cost = _OLD_COSTS[cost]
    if cost not in COSTS:
        raise ValueError(f"Argument `cost` must be one of {COSTS}, but is {cost!r}.")
    return Target(cost, keep, max_kl, max_drop)


def check_counts(**counts: Any) -> None:
    """Raises a ValueError that names the first of these arguments that is below 1."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"Argument `{name}` must be an integer of at least 1, but is {count!r}.")


def check_steps(**counts: Any) -> None:
    """Raises a ValueError that names the first of these arguments that is below 0."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"Argument `{name}` must be an integer of at least 0, but is {count!r}.")


@contextmanager
def with_progress(progress: bool | Callable[..., None] | None) -> Iterator[Callable[[int, int], None] | None]:
    """What to call with the samples done and the samples in all: a bar of the library's own for True.

    A callable that takes one argument gets the samples done alone.
    """
    if not progress:
        yield None
    elif progress is True:
        from tqdm.auto import tqdm

        with tqdm(unit="sample", desc="compress") as bar:

            def draw(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield draw
    elif callable(progress):
        yield _adapted(progress)
    else:
        raise TypeError(f"Argument `progress` must be True, False or a callable, but is {progress!r}.")


def _adapted(progress: Callable[..., None]) -> Callable[[int, int], None]:
    try:
        inspect.signature(progress).bind(0, 0)
    except (TypeError, ValueError):  # it takes one argument, or is of C and does not say what it takes
        return lambda done, total: progress(done)
    return progress
