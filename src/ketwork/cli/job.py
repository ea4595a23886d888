"""The command as one of several processes that `torchrun` started together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist


@dataclass
class Job:
    """This process's `rank` in the job; `met` says that all have come to the end of their work together."""

    rank: int
    met: bool = False

    def device(self, device: str) -> str:
        """The device of this process: each process of a machine takes a GPU of its own."""
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


@contextmanager
def launched(timeout: float = 1800.0) -> Iterator[Job | None]:
    """This process's job, or None where `torchrun` did not start it.

    At the end processes that have met wait for process 0, since `torchrun` ends all as soon as one has failed.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield None
        return
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    job = Job(dist.get_rank())
    try:
        yield job
    finally:
        if job.met:
            with suppress(RuntimeError):  # a process that has gone is not waited for
                dist.barrier()
        dist.destroy_process_group()
