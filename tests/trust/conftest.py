"""What a hostile input may cost: so many seconds of work, and so much memory above what the process has."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 5.0
WAITING = 12
"""Times as long by the clock, for what waits and does not work, on a machine that others use too."""
BYTES = 1 << 30


class Hung(BaseException):
    """An input took too long."""


def _hung(*_: object) -> None:
    raise Hung


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Ends a block that takes too long; what would take too much memory fails in it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    timers = {
        signal.ITIMER_PROF: (signal.SIGPROF, seconds),
        signal.ITIMER_REAL: (signal.SIGALRM, seconds * WAITING),
    }
    handlers = {number: signal.signal(number, _hung) for number, _ in timers.values()}
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    for timer, (_, most) in timers.items():
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(name="bounded")
def _bounded():
    return bounded
