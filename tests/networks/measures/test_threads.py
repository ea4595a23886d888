"""Work on several threads: results in order, errors, and the caller's threads and gradients as they were."""

import threading
import time

import pytest
import torch

from ketwork.networks.measures.threads import in_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items_whichever_ends_first() -> None:
    def slow_first(i: int) -> int:
        time.sleep(0.1 if i == 0 else 0)
        return i * i

    assert list(in_threads(slow_first, range(5))) == [0, 1, 4, 9, 16]


def test_two_items_are_worked_on_at_once_each_on_one_thread_without_gradients() -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(_: int) -> tuple[int, bool, bool]:
        both.wait()  # raises where no other comes
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            threading.current_thread() is threading.main_thread(),
        )

    assert list(in_threads(meet, range(4))) == [(1, False, False)] * 4
    later: list[int] = []
    other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert later == [2]  # a thread begins with what the last one set


def test_one_at_a_time_is_here() -> None:
    names = list(in_threads(lambda _: threading.current_thread().name, range(3), at_once=1))
    assert names == [threading.current_thread().name] * 3


def test_an_error_is_raised_in_its_turn_and_ends_the_rest() -> None:
    begun: list[int] = []

    def fails(i: int) -> int:
        begun.append(i)
        if i == 1:
            raise ValueError("of item 1")
        time.sleep(0.05)
        return i

    results = in_threads(fails, range(200))
    assert next(results) == 0
    with pytest.raises(ValueError, match="of item 1"):
        next(results)
    assert len(begun) < 50
