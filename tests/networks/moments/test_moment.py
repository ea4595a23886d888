"""Second moments add up, whatever form they are in: rows, matrices, sketches; and come back from files."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ketwork.networks.activations.encoding import unit
from ketwork.networks.moments import grams
from ketwork.networks.moments.moment import Moment, StoredMoment
from ketwork.records.record import pack, unpack


def _kets(n: int, d: int, seed: int, complex_: bool = False) -> Tensor:
    dtype = torch.complex128 if complex_ else torch.float64
    kets = torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return kets / kets.norm(dim=-1, keepdim=True)


def _again(moment: Moment) -> Moment:
    """The moment as a file brings it back."""
    return Moment.restored(unpack(StoredMoment, *pack(moment.stored())))


def _sum(*moments: Moment) -> Moment:
    total = copy.deepcopy(moments[0])
    for moment in moments[1:]:
        total += copy.deepcopy(moment)
    return total


@settings(max_examples=settings.default.max_examples * 3 // 5)
@given(
    sizes=st.tuples(*[st.integers(0, 40)] * 3),
    d=st.integers(1, 24),
    complex_=st.booleans(),
    weighted=st.booleans(),
)
def test_moments_are_a_monoid(sizes: tuple[int, int, int], d: int, complex_: bool, weighted: bool) -> None:
    batches = [_kets(n, d, seed, complex_) for seed, n in enumerate(sizes)]
    weights = [torch.arange(1.0, n + 1, dtype=torch.float64) if weighted else None for n in sizes]
    a, b, c = (Moment.from_vectors(k, w) for k, w in zip(batches, weights, strict=True))
    every = torch.cat(batches)
    scale = torch.cat([w if w is not None else torch.ones(n) for n, w in zip(sizes, weights, strict=True)])
    exact = torch.einsum("n,ni,nj->ij", scale.to(every), every, every.conj())
    for total in (
        _sum(_sum(a, b), c),
        _sum(a, _sum(b, c)),
        _sum(c, a, b),
        _sum(Moment.empty(d, every), a, b, c),
    ):
        assert total.n == sum(sizes)
        assert math.isclose(total.weight, float(scale.sum()), rel_tol=1e-12, abs_tol=1e-12)
        torch.testing.assert_close(total.matrix(), exact, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(total.diagonal(), exact.diagonal().real, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(total.first, (every * scale.sqrt()[:, None].to(every)).sum(dim=0))
        back = _again(total)
        torch.testing.assert_close(back.matrix(), total.matrix(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [511, 512, 515, 1030])
def test_wide_moments_from_their_upper_blocks(d: int) -> None:
    kets = torch.randn(3 * d, d, generator=torch.Generator().manual_seed(0))
    moment = Moment.from_vectors(kets)
    assert moment.rows is None
    exact = kets.double().T @ kets.double()
    torch.testing.assert_close(moment.matrix(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    assert torch.equal(moment.matrix(), moment.matrix().T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_sums_of_many_wide_kets(dtype: torch.dtype) -> None:
    """Which are summed in parts, in 64 bits a number."""
    kets, _ = unit(torch.randn(90, 5000, dtype=dtype, generator=torch.Generator().manual_seed(0)))
    weights = torch.rand(90, generator=torch.Generator().manual_seed(1))
    moment = Moment.from_vectors(kets, weights)
    rows = (kets * weights.sqrt()[:, None]).numpy().astype(complex)
    assert math.isclose(moment.weight, float(weights.double().sum()), rel_tol=1e-15)
    torch.testing.assert_close(
        moment.first.to(torch.complex128), torch.from_numpy(rows.sum(0)), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(
        moment.diagonal(), torch.from_numpy((abs(rows) ** 2).sum(0)), rtol=1e-13, atol=0
    )


def test_a_dense_moment_is_kept_as_its_upper_triangle_row_by_row() -> None:
    total = Moment.from_vectors(_kets(40, 13, 0, complex_=True))
    packed = total.stored().upper
    assert packed is not None
    i, j = torch.triu_indices(13, 13)
    torch.testing.assert_close(packed, total.matrix()[i, j], rtol=0, atol=1e-12)
    assert torch.equal(_again(total).matrix(), total.matrix())
    for at_once in (1, 5, 13, 100):
        assert torch.equal(grams.packed(total.matrix(), at_once), total.matrix()[i, j])
        assert torch.equal(grams.unpacked(packed, 13, at_once), grams.unpacked(packed, 13))


def test_moments_of_different_widths_do_not_add() -> None:
    with pytest.raises(ValueError, match="Moments of 3 and of 4 features"):
        _sum(Moment.from_vectors(_kets(2, 3, 0)), Moment.from_vectors(_kets(2, 4, 0)))


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _decaying(n: int, d: int, power: float, seed: int = 0) -> Tensor:
    rows = torch.randn(n, d, generator=_draw(seed), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=_draw(seed + 1), dtype=torch.float64)).Q
    return (rows * torch.arange(1, d + 1).double() ** -power) @ turn


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
        moments.append(Moment.from_vectors(kets, weights, limits[i]))
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
    back = Moment.restored(unpack(StoredMoment, *pack(total.stored())))
    torch.testing.assert_close(back.matrix(), total.matrix(), rtol=1e-12, atol=1e-14)
    assert back.slack == total.slack
    more = Moment.from_vectors(unit(_decaying(30, d, power, seed=9))[0].to(rows.dtype))
    back += copy.deepcopy(more)
    total += more
    torch.testing.assert_close(back.matrix(), total.matrix(), rtol=1e-9, atol=1e-10)
