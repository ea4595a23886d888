"""Signals: what must not be interrupted is done before they are handled, and Ctrl-C and SIGTERM end a command alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_CHILD = tuple(signal.Signals[name] for name in ("SIGCHLD",) if name in signal.Signals.__members__)
_ALL = (signal.SIGINT, signal.SIGTERM, *_CHILD)


@contextmanager
def deferred() -> Iterator[None]:
    """Lets Ctrl-C, SIGTERM and the end of a child wait until the block is over, so that it is done fully or not begun.

    PyTorch tells of a data loader's worker that died by an error in whatever runs at that moment.
    """
    waiting: list[int] = []
    with _handled(_ALL, lambda number, _: waiting.append(number)):
        yield
    for number in waiting:
        signal.raise_signal(number)


@contextmanager
def without_children() -> Iterator[None]:
    """In the block it is no error that a data loader's worker has died: no more is expected of it."""
    known = {number: signal.getsignal(number) for number in _CHILD}

    def handle(number: int, frame: Any) -> None:
        handler = known[signal.Signals(number)]
        with suppress(RuntimeError):
            if callable(handler):
                handler(number, frame)

    with _handled(_CHILD, handle):
        yield


@contextmanager
def terminable() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt in the block, as Ctrl-C does; the list then holds its number."""
    heard: list[int] = []

    def end(number: int, _: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM,), end):
        yield heard


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Handles these signals; only the main thread hears any, and handlers of other languages stay."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers if main}
    try:
        for number, known in before.items():
            if known is not None:
                signal.signal(number, handler)
        yield
    finally:
        for number, known in before.items():
            if known is not None:
                signal.signal(number, known)
