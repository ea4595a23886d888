"""Which samples are taken: evenly by label, else at random, by the seed; and words that say which."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ketwork._draws import choose


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=8),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**40),
)
def test_labels_share_the_places_as_evenly_as_they_can(counts: list[int], share: float, seed: int) -> None:
    n, k = sum(counts), len(counts)
    most = max(int(share * n), k)
    labels = np.random.default_rng(seed).permutation(np.repeat([f"label {i}" for i in range(k)], counts))
    places, words = choose(n, most, labels, seed)
    assert len(set(places.tolist())) == len(places) == min(most, n)
    assert (np.diff(places) > 0).all()
    taken = Counter(labels[places])
    largest = max(taken.values())
    for i, count in enumerate(counts):  # none has fewer than another, unless it is taken whole
        assert taken[f"label {i}"] == count or taken[f"label {i}"] >= largest - 1
    low = min(taken.values())
    each = f"{low}" if low == largest else f"{low} to {largest}"
    assert words == f"{most:,} of {n:,} samples, {each} of each of {k} labels"


@pytest.mark.parametrize(
    "labels",
    [
        None,
        np.linspace(0, 1, 400),  # numbers
        np.zeros((400, 3), dtype=int),  # of positions
        np.arange(400),  # more labels than places
        np.array(["a", None] * 200, dtype=object),  # missing for some
        np.zeros(400, dtype=int),  # one only
    ],
    ids=["none", "numbers", "positions", "many", "missing", "one"],
)
def test_without_labels_that_can_be_shared_the_draw_is_uniform(labels: np.ndarray | None) -> None:
    seen = np.zeros(400)
    for seed in range(200):
        places, words = choose(400, 40, labels, seed)
        assert words == "40 of 400 samples, drawn at random"
        assert (np.diff(places) > 0).all()
        seen[places] += 1
    # Each is taken 200 × 40/400 = 20 times; the sum of squares is that of 400 draws without replacement.
    assert ((seen - 20) ** 2).sum() / (20 * (1 - 40 / 400)) == pytest.approx(400, rel=0.25)
    assert seen[:200].mean() == pytest.approx(20, abs=1)


def test_within_a_label_the_draw_is_uniform_too() -> None:
    labels = np.array([0] * 100 + [1] * 300)
    seen = np.zeros(400)
    for seed in range(300):
        seen[choose(400, 40, labels, seed)[0]] += 1
    for group, expected in ((seen[:100], 300 * 20 / 100), (seen[100:], 300 * 20 / 300)):
        spread = expected * (1 - expected / 300)
        assert ((group - expected) ** 2).sum() / spread == pytest.approx(len(group), rel=0.5)


def test_the_seed_decides() -> None:
    labels = np.arange(300) % 3
    one, again, other = (choose(300, 30, labels, seed)[0].tolist() for seed in (1, 1, 2))
    assert one == again != other
    generator = torch.Generator().manual_seed(1)
    assert choose(300, 30, labels, generator)[0].tolist() == one
    assert choose(300, 30, labels, generator)[0].tolist() != one  # it went on
