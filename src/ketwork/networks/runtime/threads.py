"""One thread a piece of work: decompositions of several matrices at once use all cores, those of one hardly do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], *, at_once: int) -> Iterator[Result]:
    """`work` of each item, in their order, at most so many at a time and no more than torch uses threads.

    Each runs without gradients, on one thread. What one raises is raised here, when its turn comes; those that have not
    begun are dropped then.
    """
    threads = torch.get_num_threads()
    workers = min(threads, at_once, len(items))
    if workers <= 1:
        yield from map(work, items)
        return

    def run(item: Item) -> Result:
        with torch.no_grad():
            return work(item)

    pool = ThreadPoolExecutor(workers, "ketwork", torch.set_num_threads, (1,))
    try:
        yield from pool.map(run, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets is also what later ones begin with
