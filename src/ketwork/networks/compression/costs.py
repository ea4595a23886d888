"""What a network costs: parameters, multiply-adds, and seconds a batch as measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import FlopCounterMode

COSTS = ("parameters", "macs", "latency", "bytes")
"""What a share can be kept of: parameters, multiply-adds of a sample, measured seconds of a batch, bytes of the
weights."""


@dataclass(frozen=True)
class Costs:
    """Parameters, multiply-adds a sample, the seconds of one batch, and the bytes of the parameters."""

    parameters: int
    multiply_adds: float
    latency: float
    bytes: int = 0


def parameters(model: nn.Module) -> int:
    """The number of parameters, those that several modules share counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(call: Callable[[], Any], samples: int) -> float:
    """The multiply-adds a sample of what `call` computes on so many samples: its matrix products and convolutions.

    >>> net, x = nn.Linear(10, 20), torch.ones(4, 10)
    >>> multiply_adds(lambda: net(x), samples=4)
    200.0
    """
    return multiply_adds_within(call, samples, {})[""]


def multiply_adds_within(
    call: Callable[[], Any], samples: int, modules: Mapping[str, nn.Module]
) -> dict[str, float]:
    """`multiply_adds` of what each module computes, whatever is in it included, by name; that of all of it by "".

    >>> net, x = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)), torch.ones(4, 10)
    >>> multiply_adds_within(lambda: net(x), 4, {"1": net[1]})
    {'1': 100.0, '': 300.0}
    """
    result = dict.fromkeys(modules, 0.0)
    fused = torch.backends.mha.get_fastpath_enabled()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        torch.backends.mha.set_fastpath_enabled(False)  # fused kernels are none that the counter knows
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_counted_recurrences(count := _Count()))
        count.counter = stack.enter_context(FlopCounterMode(display=False))
        begun: list[float] = []

        def before(*_: object) -> None:
            begun.append(count.products)

        def after(path: str) -> Callable[..., None]:
            def hook(*_: object) -> None:
                result[path] += (count.products - begun.pop()) / samples

            return hook

        for path, module in modules.items():
            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after(path)).remove)
        call()
        return result | {"": count.products / samples}


class _Count:
    """Multiply-adds so far: what the counter of operations has seen, and what it does not know of."""

    counter: FlopCounterMode
    extra = 0.0

    @property
    def products(self) -> float:
        """All of them."""
        return self.counter.get_total_flops() / 2 + self.extra


@contextlib.contextmanager
def _counted_recurrences(count: _Count) -> Iterator[None]:
    """Counts what `nn.RNN`, `nn.LSTM` and `nn.GRU` compute by their sizes: their kernels are none the counter knows.

    What of it the counter does see, where there is no such kernel, is not counted twice.
    """
    begun: list[float] = []

    def before(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, nn.RNNBase):
            begun.append(count.products)

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, nn.RNNBase):
            count.extra += begun.pop() + recurrent_products(module, inputs[0]) - count.products

    handles = [
        nn.modules.module.register_module_forward_pre_hook(before),
        nn.modules.module.register_module_forward_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def recurrent_products(module: nn.RNNBase, x: Any) -> float:
    """The multiply-adds of a recurrent network of torch.nn on x: each step's products with all its matrices."""
    steps = len(x.data) if isinstance(x, PackedSequence) else x[..., 0].numel()
    return float(steps * sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight")))


def latencies(calls: Sequence[Callable[[], Any]], repeats: int = 7, least: float = 0.0) -> list[float]:
    """The seconds of each call: the least of `repeats` timings, taken in turns, after one to warm up.

    The least, because whatever else the machine does only adds. A timing repeats its call until about `least` seconds
    are over.
    """
    with torch.no_grad():
        counts = [max(1, round(least / max(_timed(call, 1), 1e-9))) for call in calls]
        rounds = [[_timed(call, n) for call, n in zip(calls, counts, strict=True)] for _ in range(repeats)]
    return [min(times) for times in zip(*rounds, strict=True)]


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


def bytes_of(model: nn.Module) -> int:
    """The bytes of the parameters; of weights that are integers of 8 bits, those and a scale for each output
    channel."""
    total, seen = 0, set()
    for module in model.modules():
        eight = getattr(module, EIGHT_BITS, False)
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if eight and name == "weight":
                total += parameter.numel() + 4 * len(parameter)
            else:
                total += parameter.nbytes
    return total


EIGHT_BITS = "_eight_bits"
"""The attribute of a module whose weight holds integers of 8 bits times a scale for each output channel."""
