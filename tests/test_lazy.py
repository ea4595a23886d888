"""Properties that are computed once, of several objects at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

import ketwork as kw
from ketwork._lazy import cached_property


class Meeting:
    """A property that ends only where another thread computes it too."""

    def __init__(self, place):
        self.place = place

    @cached_property
    def number(self):
        """The place where this thread came in."""
        return self.place.wait(timeout=20)


def test_two_objects_compute_at_the_same_time():
    place = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        numbers = list(pool.map(lambda each: each.number, (Meeting(place), Meeting(place))))

    assert sorted(numbers) == [0, 1]


def test_it_is_computed_once_and_documented():
    place = threading.Barrier(1)
    one = Meeting(place)

    assert one.number == 0
    assert vars(one)["number"] == 0
    place.abort()
    assert one.number == 0
    assert Meeting.number.__doc__ == "The place where this thread came in."


def test_layers_are_decomposed_at_the_same_time(monkeypatch):
    """The first two decompositions of a study wait for each other: one after the other they would not end."""
    place, eigh = threading.Barrier(2), torch.linalg.eigh
    waiting = threading.Semaphore(2)

    def both(matrix):
        if matrix.ndim == 2 and waiting.acquire(blocking=False):
            place.wait(timeout=20)
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", both)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    record = kw.study(nn.Sequential(nn.Linear(6, 5), nn.Tanh()), torch.randn(300, 6))
    record.table()

    assert not place.broken
