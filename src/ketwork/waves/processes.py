"""Processes of one `torch.distributed` job that share a run: each draws and measures a part of the samples.

What they drew and measured is joined, so that all have the same samples, local energies and log-derivatives, solve the
same system and take the same step; after each step all have the parameters of process 0, whatever their processors
round differently.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor

_SPREAD = 0x9E3779B97F4A7C15
"""By how much the seeds of neighbouring processes differ: 2⁶⁴ over the golden ratio."""


@dataclass(frozen=True)
class Processes:
    """Process `rank` of `count`; one alone joins nothing."""

    rank: int = 0
    count: int = 1

    @classmethod
    def from_argument(cls, distributed: str | None) -> Self:
        """None for this process alone, or those of the job that it is in.

        Raises:
            ValueError: it is neither None nor "split", or there is no job.
        """
        if distributed is None:
            return cls()
        if distributed != "split":
            raise ValueError(
                f'Argument `distributed` must be None or "split", but is {distributed!r}. With "split" the processes '
                "of a job draw the samples together."
            )
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                'Argument `distributed` is "split", but this process is in no job. Start all with '
                "`torchrun --nproc-per-node … script.py`, and call `torch.distributed.init_process_group()` first."
            )
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, n: int) -> int:
        """How many of n samples each draws."""
        return -(-n // self.count)

    def draws(self, generator: torch.Generator) -> torch.Generator:
        """What this process draws by: the generator itself at process 0, and one of its own elsewhere."""
        if self.first:
            return generator
        seed = (generator.initial_seed() + self.rank * _SPREAD) % 2**63
        return torch.Generator().manual_seed(seed)

    def part(self, n: int) -> Tensor:
        """The places of this process's part of n rows: as many in each, the last row again where they do not go up."""
        size = self.share(n)
        return torch.arange(self.rank * size, (self.rank + 1) * size).clamp(max=n - 1)

    def mapped(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`compute(x)` of rows x (n, …), each process computing a part of the rows."""
        if self.count == 1 or not len(x):
            return compute(x)
        return self.joined(compute(x[self.part(len(x)).to(x.device)]))[: len(x)]

    def joined(self, mine: Tensor) -> Tensor:
        """The rows of all processes one below the other; each has as many."""
        if self.count == 1:
            return mine
        real = _real(mine).contiguous()
        parts = [torch.empty_like(real) for _ in range(self.count)]
        dist.all_gather(parts, real)
        both = torch.cat(parts)
        return torch.view_as_complex(both) if mine.is_complex() else both

    def total(self, mine: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            mine = mine.clone()
            dist.all_reduce(_real(mine))
        return mine

    def agreed(self, mine: Tensor) -> Tensor:
        """What process 0 has."""
        if self.count > 1:
            mine = mine.clone()
            dist.broadcast(_real(mine), 0)
        return mine


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


ALONE = Processes()
"""This process and no other."""
