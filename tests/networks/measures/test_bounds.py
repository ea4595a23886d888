"""What is certain of a spectrum of which a sketch knows a part."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ketwork.networks.measures.bounds import Known


def _between(spectrum: Tensor, known: Known) -> None:
    p = spectrum[spectrum > 0]
    entropy = float(-(p * p.log2()).sum())
    for value, (low, high) in (
        (entropy, known.entropy()),
        (float(spectrum.square().sum()), known.purity()),
        (float(spectrum.max()), known.top()),
    ):
        assert low - 1e-9 <= value <= high + 1e-9


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_intervals_hold_every_spectrum_that_a_sketch_allows(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 12))
    exact = torch.tensor(
        data.draw(st.lists(st.floats(0, 1), min_size=rank, max_size=rank)), dtype=torch.float64
    )
    exact = exact.clamp(min=1e-9).sort(descending=True).values
    exact = exact / exact.sum()
    slack = data.draw(st.floats(1e-6, 1.0))
    shares = torch.tensor(
        data.draw(st.lists(st.floats(0, 1), min_size=rank, max_size=rank)), dtype=torch.float64
    )
    low = (exact - slack * shares).clamp(min=0).sort(descending=True).values
    kept = data.draw(st.integers(0, rank))
    if bool((exact[kept:] > slack).any()):
        kept = rank  # eigenvalues that the sketch misses are below the slack
    known = Known(low[:kept], slack, rank)
    _between(exact, known)
    for extreme in (known.purest, known.most_mixed, known.middle):
        assert float(extreme.sum()) == pytest.approx(1, abs=1e-9)
        padded = torch.nn.functional.pad(low[:kept], (0, rank - kept))
        assert bool((extreme >= padded - 1e-12).all())
        assert bool((extreme <= padded + slack + 1e-12).all())
        _between(extreme, known)
    # Majorisation, of which the intervals follow: sums of the k largest.
    sums = [
        spectrum.sort(descending=True).values.cumsum(0)
        for spectrum in (known.most_mixed, exact, known.purest)
    ]
    assert bool((sums[0] <= sums[1] + 1e-9).all())
    assert bool((sums[1] <= sums[2] + 1e-9).all())


def test_a_spectrum_known_exactly_has_intervals_of_no_width() -> None:
    spectrum = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    known = Known(spectrum, 0.0, 4)
    assert known.entropy() == pytest.approx((1.75, 1.75))
    assert known.purity() == pytest.approx((0.34375, 0.34375))
    nothing = Known(spectrum[:0], 1.0, 4)
    assert nothing.entropy() == pytest.approx((0.0, 2.0))
    assert nothing.top() == pytest.approx((0.25, 1.0))
    half = Known(torch.tensor([0.5], dtype=torch.float64), 0.25, 3)
    assert half.entropy()[0] == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))
    assert half.entropy()[1] == pytest.approx(1.5)  # 1/2, 1/4, 1/4
