"""Several networks over several batches in step: all wait at a layer until every one of them has reached it.

Each forward pass runs in a thread of its own, one at a time, and is held by a hook at each named layer. When all
have come there, what each is about to give the layer is handed over together; then all go on. So every layer can
be fitted on what the layers before it, already fitted, put out, for one forward pass of each network in all,
with no knowledge of how its layers hang together. After the last layer all end: a language model's head, whose
outputs are by far the largest, is not computed. Memory: what a forward pass holds at one depth, times passes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_here = threading.local()


class _Abandoned(BaseException):
    """Unwinds a forward pass that is not wanted any more; no `except Exception` of a network can hold it."""


@dataclass
class _Runner:
    """One forward pass: it runs when `go` is released, until it has come to a layer or to its end."""

    turn: threading.Semaphore  # the scheduler's: released when the runner has stopped
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    path: str | None = None
    value: Tensor | None = None
    abandoned: bool = False
    done: bool = False

    def run(self, call: Callable[[], Any]) -> None:
        """The thread's work."""
        self._wait()
        _here.runner = self
        with torch.inference_mode(False), torch.no_grad():
            call()

    def arrive(self, path: str, value: Tensor) -> None:
        """Stops at a layer."""
        self.path, self.value = path, value
        self.turn.release()
        self._wait()
        self.path = self.value = None

    def finish(self, _: Future[None]) -> None:
        """Called when the thread's work is over, well or not."""
        self.done = True
        self.turn.release()

    def _wait(self) -> None:
        self.go.acquire()
        if self.abandoned:
            raise _Abandoned


def run_in_step(
    networks: Sequence[nn.Module],
    calls: Sequence[Callable[[nn.Module], Any]],
    order: Sequence[str],
    meet: Callable[[str, list[list[Tensor]]], None],
) -> set[str]:
    """Runs each call on each network, all in step; the layers at which they did not all meet.

    Args:
        networks: networks with the same modules by name.
        calls: the forward passes, each called with a network (its weights may change while the call waits).
        order: the layers by name, in the order in which they run.
        meet: gets a layer's name and, for each network, the inputs that each call is about to give it.

    An error in any call is raised here, after all others were ended.
    """
    turn = threading.Semaphore(0)
    runners = [[_Runner(turn) for _ in calls] for _ in networks]
    flat = [runner for row in runners for runner in row]
    place = {path: i for i, path in enumerate(order)}
    missed: set[str] = set()
    handles = [
        network.get_submodule(path).register_forward_pre_hook(_stop(path))
        for network in networks
        for path in order
    ]
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(len(flat)) as threads:
        try:
            for network, row in zip(networks, runners, strict=True):
                for call, runner in zip(calls, row, strict=True):
                    future = threads.submit(runner.run, partial(call, network))
                    future.add_done_callback(runner.finish)
                    futures.append(future)
            going = flat
            while going:
                for runner in going:
                    runner.go.release()
                    turn.acquire()
                    if runner.done:
                        futures[flat.index(runner)].result()
                waiting = [runner for runner in flat if not runner.done]
                if not waiting:
                    break
                path = min(
                    (runner.path for runner in waiting if runner.path is not None), key=place.__getitem__
                )
                going = [runner for runner in waiting if runner.path == path]
                if len(going) == len(flat):
                    meet(path, [[_value(runner) for runner in row] for row in runners])
                    if path == order[-1]:
                        break
                else:
                    missed.add(path)
        finally:
            for handle in handles:
                handle.remove()
            for runner, future in zip(flat, futures, strict=False):  # of those that have begun
                runner.abandoned = True
                runner.go.release()
                wait([future])  # one at a time, here too
    return missed


def _stop(path: str) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, inputs: Any) -> None:
        runner = getattr(_here, "runner", None)
        if runner is not None:
            runner.arrive(path, inputs[0])

    return hook


def _value(runner: _Runner) -> Tensor:
    assert runner.value is not None
    return runner.value
