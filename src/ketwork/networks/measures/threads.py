"""Several decompositions at once, each on a thread of its own: one alone gains little from many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], at_once: int | None = None
) -> Iterator[Result]:
    """`work` of each item, in their order; at most so many at a time, and no more than torch uses threads.

    What one raises is raised when its turn comes; those that have not begun are dropped then.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(items), threads if at_once is None else at_once)
    if workers <= 1:
        yield from map(work, items)
        return

    def run(item: Item) -> Result:
        with torch.no_grad():  # which holds for the thread that says it
            return work(item)

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(run, items)
    finally:
        pool.shutdown()
        torch.set_num_threads(threads)  # else later threads would begin with what these have set
