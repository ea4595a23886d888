"""Progress: the library's own bar, or a function of the caller's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Progress = bool | Callable[[int], None]
"""True for a bar in terminals and notebooks, or a function that gets the number of samples so far."""


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
        yield lambda done: bar.update(done - bar.n)
