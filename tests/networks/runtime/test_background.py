"""Long work is left at once by Ctrl-C, whatever call it is in, and what it handed over counts."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from ketwork.networks.runtime import GRACE, Background, background, interruptible, left_behind
from ketwork.records import terminable


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_work_that_ends_by_itself_is_waited_for_and_heard_in_the_callers_thread() -> None:
    heard: list[tuple[int, bool]] = []

    def work(told: Background) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert torch.get_num_threads() == threads
        for number in range(5):
            told.report(number)

    threads = torch.get_num_threads()
    me = threading.current_thread()
    assert interruptible(work, lambda number: heard.append((number, threading.current_thread() is me)))
    assert heard == [(number, True) for number in range(5)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_looks_whether_it_is_asked_to_stop_keeps_what_it_has(number: int) -> None:
    done: list[int] = []

    def work(told: Background) -> None:
        while not told.stopped:
            done.append(len(done))
            if len(done) == 3:
                signal.raise_signal(number)
            time.sleep(0.01)

    with terminable():
        assert not interruptible(work)
    count = len(done)
    assert done[:3] == [0, 1, 2]
    assert not left_behind()
    time.sleep(0.05)
    assert len(done) == count


def test_a_call_that_cannot_be_broken_is_left_behind() -> None:
    free, done = threading.Event(), []

    def work(told: Background) -> None:
        signal.raise_signal(signal.SIGINT)
        free.wait(60)  # as one call of LAPACK
        done.append(told.stopped)

    begun = time.monotonic()
    assert not interruptible(work)
    assert GRACE <= time.monotonic() - begun < 30
    assert left_behind()
    assert not done
    free.set()
    end = time.monotonic() + 60
    while left_behind():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert done == [True]


def test_whoever_interrupts_again_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "GRACE", 600.0)
    free = threading.Event()

    def work(told: Background) -> None:
        signal.raise_signal(signal.SIGINT)
        while not told.stopped:
            time.sleep(0.001)
        signal.raise_signal(signal.SIGINT)
        free.wait(60)

    begun = time.monotonic()
    assert not interruptible(work)
    free.set()
    assert time.monotonic() - begun < 60


def test_work_whose_time_is_over_is_asked_to_stop() -> None:
    done: list[int] = []

    def work(told: Background) -> None:
        while not told.stopped:
            done.append(0)
            time.sleep(0.01)

    assert not interruptible(work, seconds=0.1)
    assert 1 <= len(done) <= 12


def test_errors_are_raised_where_the_work_was_begun() -> None:
    def fails(told: Background) -> None:
        raise LookupError("in the work")

    with pytest.raises(LookupError, match="in the work"):
        interruptible(fails)

    def deaf(event: int) -> None:
        raise LookupError("in what hears")

    stopped = threading.Event()

    def work(told: Background) -> None:
        told.report(1)
        while not told.stopped:
            time.sleep(0.001)
        stopped.set()

    with pytest.raises(LookupError, match="in what hears"):
        interruptible(work, deaf)
    assert stopped.is_set()


def test_in_another_thread_it_simply_runs() -> None:
    threads: list[threading.Thread] = []
    other = threading.Thread(
        target=lambda: interruptible(lambda told: threads.append(threading.current_thread()))
    )
    other.start()
    other.join()
    assert threads == [other]
