"""What is certain of a spectrum of which a sketch knows a part."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ketwork.networks.measures.sketch_bounds import Known


def _between(spectrum: Tensor, known: Known) -> None:
    p = spectrum[spectrum > 0]
    entropy = float(-(p * p.log2()).sum())
    for value, (low, high) in (
        (entropy, known.entropy()),
        (float(spectrum.square().sum()), known.purity()),
        (float(spectrum.max()), known.top()),
    ):
        assert low - 1e-9 <= value <= high + 1e-9


@settings(max_examples=settings.default.max_examples * 2)
@given(
    levels=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12),
    slack=st.floats(1e-6, 1.0),
    kept=st.integers(0, 12),
)
# Lows that sum to more than 1 by rounding
@example(levels=[(0.5, 0.0), *[(0.0, 0.0)] * 4], slack=0.125, kept=5)
@example(levels=[(0.5, 0.0), *[(0.0, 0.0)] * 4], slack=1e-6, kept=5)
def test_intervals_hold_every_spectrum_that_a_sketch_allows(
    levels: list[tuple[float, float]], slack: float, kept: int
) -> None:
    rank, kept = len(levels), min(kept, len(levels))
    exact, shares = torch.tensor(levels, dtype=torch.float64).T
    exact = exact.clamp(min=1e-9).sort(descending=True).values
    exact = exact / exact.sum()
    low = (exact - slack * shares).clamp(min=0).sort(descending=True).values
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


@pytest.mark.parametrize("slack", [0.125, 1e-6])
@pytest.mark.parametrize("excess", [2**-52, 2**-50, 0.0, -(2**-50)])
def test_lows_that_sum_to_one_but_for_rounding_are_the_spectrum(slack: float, excess: float) -> None:
    low = torch.tensor([1 + excess - 4e-9, 1e-9, 1e-9, 1e-9, 1e-9], dtype=torch.float64)
    known = Known(low, slack, 5)
    for extreme in (known.purest, known.most_mixed, known.middle):
        assert (extreme - low).abs().max() < 1e-14
    _between(low, known)


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
