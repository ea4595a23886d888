"""Progress: the library's own bar, or a function of the caller's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

Progress = bool | Callable[[int], None]
"""True for a bar in terminals and notebooks, or a function that gets the number of samples so far.

It is called after each batch, and again after each layer's state is decomposed.
"""


@contextlib.contextmanager
def show_progress(progress: Progress, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """What to call with the number of samples so far; None where nobody wants to know.

    Raises:
        TypeError: it is neither a truth value nor callable.
    """
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool):
        raise TypeError(f"Argument `progress` must be True, False or a function, but is {progress!r}.")
    if not progress:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="sample", leave=False) as bar:
        yield _Bar(bar)


def show_layer(report: Callable[[int], None] | None, samples: int, number: int, total: int) -> None:
    """Reports that the states of so many of all layers are decomposed, which can take longer than the pass.

    A caller's function is called with the number of samples once more.
    """
    if isinstance(report, _Bar):
        report.bar.set_postfix_str(f"{number} of {total} layers decomposed")
    elif report is not None:
        report(samples)


class _Bar:
    """The library's own."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def __call__(self, done: int) -> None:
        self.bar.update(done - self.bar.n)
