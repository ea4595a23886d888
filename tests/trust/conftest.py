"""What a hostile input may cost: so many seconds of work, and so much memory above what the process has."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

SECONDS = 30.0
"""Of the processor's time: what is refused takes milliseconds, and what hangs has no end."""
WAITING = 12
"""Times as long by the clock, for what waits and does not work, on a machine that others use too."""
BYTES = 1 << 30
BYTES_OF_A_THREAD = 1 << 27
"""Of addresses, hardly used: a stack, and 64 MiB that the C library reserves."""


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
    most = used + BYTES + torch.get_num_threads() * BYTES_OF_A_THREAD
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    for timer, (_, left) in timers.items():
        signal.setitimer(timer, left)
    try:
        yield
    except Hung:  # an error like others, for what tries many inputs to say which it was
        raise AssertionError("took too long") from None
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(name="bounded")
def _bounded():
    return bounded
