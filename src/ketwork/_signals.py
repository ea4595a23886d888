"""Ctrl-C and SIGTERM: what must be done whole is done before they are heard, and both end a command alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_BOTH = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait until the block is over, so that it is done whole or not begun."""
    waiting: list[int] = []
    with _handled(_BOTH, lambda number, _: waiting.append(number)):
        yield
    for number in waiting:
        signal.raise_signal(number)


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
def _handled(numbers: tuple[int, ...], handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Handles these signals; only the main thread hears any, and handlers of other languages are left alone."""
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
