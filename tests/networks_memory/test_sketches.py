"""The Frequent Directions sketch: its certified error on adversarial, random and real data, merged in any order."""

import copy
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ketwork.networks.encode import unit
from ketwork.networks.frequent_directions import FrequentDirections
from ketwork.networks.intervals import Known
from ketwork.networks.moments import Moment


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _decaying(n: int, d: int, power: float, seed: int = 0) -> Tensor:
    rows = torch.randn(n, d, generator=_draw(seed), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=_draw(seed + 1), dtype=torch.float64)).Q
    return (rows * torch.arange(1, d + 1).double() ** -power) @ turn


def _rotating(n: int, d: int) -> Tensor:
    """Long runs of one basis vector after the other, weak first: each is new when it comes."""
    places = torch.arange(n) * d // n
    return torch.nn.functional.one_hot(places, d).double() * (1 + places[:, None].double() / d)


def _alternating(n: int, d: int, rank: int) -> Tensor:
    """What makes plain truncation forget: ℓ strong directions, then one weak one at a time, again and again."""
    strong = torch.eye(d, dtype=torch.float64)[torch.arange(n) % rank] * 1.5
    weak = torch.eye(d, dtype=torch.float64)[rank + torch.arange(n) % (d - rank)]
    return torch.stack([strong, weak], dim=1).flatten(0, 1)


DATA = {
    "flat": lambda: _decaying(500, 40, 0.0),
    "decaying": lambda: _decaying(500, 40, 1.0),
    "steep": lambda: _decaying(500, 40, 3.0),
    "rotating": lambda: _rotating(600, 40),
    "alternating": lambda: _alternating(300, 40, 8),
    "one direction": lambda: torch.ones(300, 40, dtype=torch.float64),
    "complex": lambda: torch.complex(_decaying(500, 40, 1.0), _decaying(500, 40, 0.5, seed=7)),
}


def _certified(sketch: FrequentDirections, rows: Tensor) -> float:
    """Asserts what a sketch claims of the rows, and returns its true error over its bound."""
    left = rows.mH @ rows - sketch.rows.mH @ sketch.rows
    values = torch.linalg.eigvalsh(left)
    whole = float(rows.abs().square().sum())
    assert float(values[0]) >= -1e-12 * whole
    assert float(values[-1]) <= sketch.slack + 1e-12 * whole
    assert float(left.diagonal().real.sum()) == pytest.approx(sketch.lost, abs=1e-10 * whole)
    assert (sketch.rank + 1) * sketch.slack <= sketch.lost + 1e-10 * whole
    tails = torch.linalg.eigvalsh(rows.mH @ rows).flip(0).clamp(min=0)
    for k in range(sketch.rank + 1):  # ‖A − A_k‖²/(ℓ + 1 − k), the bound of Ghashami et al. for every k
        assert sketch.slack <= float(tails[k:].sum()) / (sketch.rank + 1 - k) + 1e-10 * whole
    return float(values[-1]) / sketch.slack if sketch.slack else 0.0


@pytest.mark.parametrize("rank", [1, 4, 8, 15])
@pytest.mark.parametrize("kind", DATA)
def test_the_bound_is_certified(kind: str, rank: int) -> None:
    rows = DATA[kind]()
    sketch = FrequentDirections.empty(40, rank=rank, like=rows)
    for batch in rows.split(37):
        sketch.add(batch)
    assert len(sketch.rows) <= 2 * rank
    tightness = _certified(sketch, rows)
    if kind in ("decaying", "complex") and rank >= 4:
        assert tightness > 0.5  # and says little more than it must


@pytest.mark.parametrize("rank", [6, 10])
def test_exact_up_to_the_rank(rank: int) -> None:
    rows = torch.randn(900, 6, generator=_draw(3), dtype=torch.float64) @ torch.randn(
        6, 40, generator=_draw(4), dtype=torch.float64
    )
    sketch = FrequentDirections.empty(40, rank=rank, like=rows)
    sketch.add(rows)
    whole = float(rows.square().sum())
    assert sketch.slack < 1e-13 * whole
    torch.testing.assert_close(sketch.rows.mH @ sketch.rows, rows.mH @ rows, rtol=0, atol=1e-12 * whole)


@settings(max_examples=settings.default.max_examples * 2 // 5)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    limits=st.lists(st.sampled_from([None, 3, 5]), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    power=st.sampled_from([0.0, 1.0]),
    weighted=st.booleans(),
    complex_=st.booleans(),
)
def test_moments_merge_in_any_order_and_form(
    sizes: list[int],
    limits: list[int | None],
    order: list[int],
    power: float,
    weighted: bool,
    complex_: bool,
) -> None:
    """Rows, matrices and sketches of different ranks: the sum is certified, and weights and diagonal stay exact."""
    d = 17
    parts, moments = [], []
    for i, n in enumerate(sizes):
        kets = unit(_decaying(n, d, power, seed=i))[0]
        kets = kets * torch.polar(torch.ones(1).double(), torch.ones(1).double()) if complex_ else kets
        weights = torch.rand(n, generator=_draw(i), dtype=torch.float64) if weighted else None
        parts.append(kets if weights is None else kets * weights.sqrt()[:, None])
        moments.append(Moment.of(kets, weights, limits[i]))
    places = [i for i in order if i < len(sizes)]
    total = copy.deepcopy(moments[places[0]])
    for i in places[1:]:
        total += copy.deepcopy(moments[i])
    rows = torch.cat(parts)
    exact = rows.mT @ rows.conj()
    left = torch.linalg.eigvalsh(exact - total.matrix()) if len(rows) else torch.zeros(1)
    assert float(left[0]) >= -1e-10
    assert float(left[-1]) <= total.slack + 1e-10
    torch.testing.assert_close(total.diagonal(), exact.diagonal().real, rtol=1e-10, atol=1e-10)
    tensors = {name: tensor.contiguous() for name, tensor in total.tensors().items()}
    back = Moment.from_tensors(tensors, d=d, n=total.n, weight=total.weight, limit=total.limit)
    torch.testing.assert_close(back.matrix(), total.matrix(), rtol=1e-12, atol=1e-14)
    assert back.slack == total.slack
    more = Moment.of(unit(_decaying(30, d, power, seed=9))[0].to(rows.dtype))
    back += copy.deepcopy(more)
    total += more
    torch.testing.assert_close(back.matrix(), total.matrix(), rtol=1e-9, atol=1e-10)


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
