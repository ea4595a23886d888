"""How long a study takes beside its network: operations that are counted, at the speed that this machine shows.

A short measurement, once a process, gives the speed: one product, one decomposition, and one small operation, of
which each layer takes some hundreds whatever its size. The counts are those of the largest terms, so the forecast is
good to a factor of two or three, which tells 40 seconds from an hour. Comparing layers is not in it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from ketwork.networks.activations import Key
from ketwork.networks.measures import LEADING, MOST_DIMENSIONS, WIDE
from ketwork.networks.moments import kets_each
from ketwork.networks.runtime.memory import Plan, Share, Width

_SIDE = 256  # of the matrices that are measured
_TIMES = 3
_UPPER = 5 / 8  # of a symmetric product that is computed
_EIGEN = 9  # r³ operations of a decomposition with its eigenvectors
_KRYLOV = 3000  # r² operations for a wide layer, which is estimated
_PASSES = 6  # over the numbers of a batch
_CALLS_OF_A_BATCH = 2500  # small operations a layer
_CALLS_OF_THE_END = 15_000
_OF_PAIRS = 1 << 21  # numbers of the samples' matrices of which the standard errors take pairs
_ROWS = 256  # of these matrices


@dataclass(frozen=True)
class Speed:
    """Operations a second of float32 products and float64 decompositions, numbers a second, seconds of a small call."""

    products: float
    decompositions: float
    numbers: float
    call: float

    @classmethod
    def measured(cls, clock: Callable[[], float] = time.perf_counter) -> Speed:
        """That of this machine now: the best of a few measurements of some 10 ms."""
        draw = torch.Generator().manual_seed(0)
        a = torch.randn(4 * _SIDE, _SIDE, generator=draw)
        rho = (a.T @ a).double()
        one = torch.ones(4)
        return cls(
            2 * a.numel() * _SIDE / _seconds(lambda: a.T @ a, clock),
            _EIGEN * _SIDE**3 / _seconds(lambda: torch.linalg.eigh(rho), clock),
            a.numel() / _seconds(lambda: a + a, clock),
            _seconds(lambda: [one + one for _ in range(100)], clock) / 100,
        )


@dataclass(frozen=True)
class Operations:
    """What a layer takes: of products in a `batch` and at the `end`, the `numbers` of a batch, of `decompositions`."""

    batch: float
    numbers: float
    end: float
    decompositions: float

    @classmethod
    def of(cls, width: Width, share: Share, exact: bool = False) -> Operations:
        """Those of a layer of d features that keeps its share; `exact` decomposes a wide one too.

        With n vectors a batch, and r dimensions in use (of a linear layer's range, or of a sketch of rank r/2): n d²
        5/4 operations, or 2 n d r + n r² 5/4, and 9 r³. At the end kept vectors meet all eigenstates, and each other.
        """
        n, d = width.vectors, width.d * (2 if width.complex else 1)
        r = d if width.span is None else width.span
        if share.rank is not None:
            r = min(2 * share.rank, d)
            batch = 4.0 * n * d * r
        elif width.span is not None:
            batch = 2.0 * n * d * r + 2 * _UPPER * n * r**2
        else:
            batch = 2 * _UPPER * n * d**2
        each = kets_each(width.d, width.length, width.itemsize)
        if share.rank is None and r > WIDE and not exact:
            return cls(
                batch, _PASSES * n * d, 2.0 * share.samples * each * d * LEADING, float(_KRYLOV) * r**2
            )
        paired = max(8, min(share.samples, _OF_PAIRS // r**2))
        pairs = 4.0 * paired * min(r, _ROWS) * r * (2 * paired + each)  # in float64
        decompositions = float(_EIGEN) * r**3
        if share.limits is not None:  # two readouts
            decompositions += 2.0 * _EIGEN * min(d, MOST_DIMENSIONS) ** 3
        return cls(batch, _PASSES * n * d, 2.0 * share.samples * each * d * r + pairs, decompositions)

    def seconds(self, speed: Speed) -> tuple[float, float]:
        """Of a batch, and of the end."""
        batch = self.batch / speed.products + self.numbers / speed.numbers + _CALLS_OF_A_BATCH * speed.call
        end = self.end / speed.products + self.decompositions / speed.decompositions
        return batch, end + _CALLS_OF_THE_END * speed.call


def with_seconds(
    plan: Plan, widths: Mapping[Key, Width], exact: bool = False, speed: Speed | None = None
) -> Plan:
    """The plan with the seconds that its layers take, in each batch like the first one and at the end.

    The `speed` is that of this machine, measured once a process, if none is given.
    """
    speed = speed_of_this_process() if speed is None else speed
    each = [
        Operations.of(widths[share.layer, share.call], share, exact).seconds(speed) for share in plan.shares
    ]
    batch, end = (sum(part) for part in zip(*each, strict=True)) if each else (0.0, 0.0)
    return replace(plan, batch_seconds=batch, end_seconds=end)


@functools.cache
def speed_of_this_process() -> Speed:
    """That of this machine, measured once."""
    return Speed.measured()


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    work()
    taken = []
    for _ in range(_TIMES):
        start = clock()
        work()
        taken.append(clock() - start)
    return max(min(taken), 1e-9)
