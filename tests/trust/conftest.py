"""What a hostile input may cost: so many seconds, and so much memory above what the process has."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS = 5.0
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
    handler = signal.signal(signal.SIGALRM, _hung)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)


@pytest.fixture(name="bounded")
def _bounded():
    return bounded
