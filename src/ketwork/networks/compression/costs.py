"""What a network costs: parameters, multiply-adds, and seconds a batch as measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_LEAST_SECONDS = 0.05  # of one timing, so that the clock's grain does not matter


@dataclass(frozen=True)
class Costs:
    """Parameters, multiply-adds a sample, and the seconds of one batch."""

    parameters: int
    multiply_adds: float
    latency: float


def parameters(model: nn.Module) -> int:
    """The number of parameters, those that several modules share counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(call: Callable[[], Any], samples: int) -> float:
    """The multiply-adds a sample of what `call` computes on so many samples: its matrix products and convolutions.

    >>> net, x = nn.Linear(10, 20), torch.ones(4, 10)
    >>> multiply_adds(lambda: net(x), samples=4)
    200.0
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2 / samples


def latency(call: Callable[[], Any], repeats: int = 7) -> float:
    """The seconds of one call: the median of `repeats` timings, after one call to warm up."""
    return latencies([call], repeats)[0]


def latencies(calls: list[Callable[[], Any]], repeats: int = 7) -> list[float]:
    """The seconds of each call, timed in turn so that what else the machine does touches all alike."""
    with torch.no_grad():
        counts = [max(1, round(_LEAST_SECONDS / repeats / max(_timed(call, 2), 1e-9))) for call in calls]
        rounds = [[_timed(call, n) for call, n in zip(calls, counts, strict=True)] for _ in range(repeats)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def _timed(call: Callable[[], Any], times: int) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(times):
        call()
    _wait()
    return (time.perf_counter() - start) / times


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
