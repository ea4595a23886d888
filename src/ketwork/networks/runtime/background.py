"""`Background`: long work in a thread of its own, so that Ctrl-C and SIGTERM are heard at once.

Python handles a signal between two of its own instructions, and one decomposition of a wide layer is a single call that
lasts minutes. Here the main thread only waits: it hears the signal, asks the work to stop, and goes on without it after
a second. What the work has handed over by then counts.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

GRACE = 1.0
"""Seconds for which work that is to stop is waited for."""

_LOOK = 0.05
_LEFT: list[threading.Thread] = []


class Background:
    """What work in the background hears and says: `stopped` that it is to stop, `report` how far it is."""

    def __init__(self, on_report: Callable[[Any], None], until: float | None = None) -> None:
        self._on_report, self._until, self._stop = on_report, until, threading.Event()

    @property
    def limited(self) -> bool:
        """Whether it has so much time, and no more."""
        return self._until is not None

    @property
    def stopped(self) -> bool:
        """Whether the work is to stop: it was interrupted, or its time is over."""
        return self._stop.is_set() or (self._until is not None and time.monotonic() > self._until)

    def report(self, *event: Any) -> None:
        """Reports an event."""
        self._on_report(*event)

    def stop(self) -> None:
        """Asks the work to stop."""
        self._stop.set()


def interruptible(
    work: Callable[[Background], None],
    on_report: Callable[..., None] = lambda *event: None,
    seconds: float | None = None,
) -> bool:
    """Runs `work` and says whether it ended by itself; False where Ctrl-C or SIGTERM ended it, or its `seconds`.

    `work` hands over what it has by itself, and nothing more once it is `stopped`. `on_report` gets what it reports, in
    the caller's thread. In another thread than the main one, which hears no signals, it simply runs.
    """
    until = None if seconds is None else time.monotonic() + seconds
    if threading.current_thread() is not threading.main_thread():
        here = Background(on_report, until)
        work(here)
        return not here.stopped
    events: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()

    def take(timeout: float | None = None) -> None:
        event = events.get(timeout=timeout)
        if event is not None:
            on_report(*event)

    there = Background(lambda *event: events.put(event), until)
    done, failed = threading.Event(), []
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()

    def run() -> None:
        try:
            torch.set_num_threads(threads)  # a thread begins with its own number
            with torch.inference_mode(False), torch.set_grad_enabled(grad):
                work(there)
        except BaseException as error:  # noqa: BLE001  it is raised in the caller's thread
            failed.append(error)
        finally:
            done.set()
            events.put(None)  # who waits for events looks at once

    give_back()
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="ketwork")
    ended = True
    try:
        thread.start()
        while not done.is_set() and not (until is not None and there.stopped):
            with contextlib.suppress(queue.Empty):
                take(_LOOK)
        if not done.is_set():
            ended = False
            there.stop()
    except KeyboardInterrupt:
        ended = False
        _end(there, done)
    except BaseException:
        _end(there, done)
        raise
    if not done.is_set():
        _LEFT[:] = [*filter(threading.Thread.is_alive, _LEFT), thread]
        return False
    thread.join()
    while not events.empty():
        take()
    if failed and ended:
        raise failed[0]
    return ended and not there.stopped


def left_behind() -> bool:
    """Whether work that was interrupted is still in a call that cannot be broken; it ends when that returns."""
    return any(thread.is_alive() for thread in _LEFT)


def give_back() -> None:
    """Gives free memory back to the system, of which glibc's malloc keeps much, some of its own for each thread."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _end(work: Background, done: threading.Event) -> None:
    """Asks work to stop, and waits a little for it; whoever interrupts again waits no longer."""
    work.stop()
    until = time.monotonic() + GRACE
    with contextlib.suppress(KeyboardInterrupt):
        while not done.wait(_LOOK) and time.monotonic() < until:
            pass
