"""What every form of overlaps owes, the same numbers of all pairs whichever side is kept, and measures of pairs."""

import copy
import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ketwork.networks.measures.overlaps import Overlaps, OverlapsOfMoments, OverlapsOfRows, overlaps_of
from ketwork.networks.measures.similarity import PAIR_MEASURES, PairMeasure, groups, measured, similarities
from ketwork.networks.moments import PairMoments

N = 300
WIDTHS = {"a": 4, "b": 9, "c": 9, "d": 30, "constant": 3}
SPLITS = [None, 2, 4]


def _layers(n: int = N, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shared = torch.randn(n, 5, generator=draw, dtype=dtype)
    found = {}
    for name, d in WIDTHS.items():
        mix = torch.randn(5, d, generator=draw, dtype=dtype)
        found[name] = shared @ mix + 0.3 * torch.randn(n, d, generator=draw, dtype=dtype) + 2
    found["c"] = 3 * found["b"] @ torch.linalg.qr(torch.randn(9, 9, generator=draw, dtype=dtype)).Q
    found["constant"] = torch.full((n, 3), 1.5, dtype=dtype)
    return found


def _held(layers: dict[str, Tensor], split: int | None, always: int) -> PairMoments:
    pairs = PairMoments(always=always)
    for start in range(0, len(layers["a"]), 64):
        part = {name: rows[start : start + 64] for name, rows in layers.items()}
        names = list(part)
        sides = [names] if split is None else [names[:split], names[split:]]
        pairs.add(*({name: part[name] for name in side} for side in sides))
    return pairs


def _rows(layers: dict[str, Tensor], split: int | None) -> Overlaps:
    return overlaps_of(_held(layers, split, 1 << 30))


def _moments(layers: dict[str, Tensor], split: int | None) -> Overlaps:
    return overlaps_of(_held(layers, split, 0))


def _few_at_a_time(layers: dict[str, Tensor], split: int | None) -> Overlaps:
    """From rows, with place for the Gram matrices of a few of them only."""
    pairs = _held(layers, split, 1 << 30)
    pairs.memory = 8 * len(layers) * N * 7
    return OverlapsOfRows(pairs)


FORMS: dict[str, Callable[[dict[str, Tensor], int | None], Overlaps]] = {
    "rows": _rows,
    "rows, a few at a time": _few_at_a_time,
    "moments": _moments,
}


def test_every_class_is_here() -> None:
    made = {type(form(_layers(), None)) for form in FORMS.values()}
    assert made == {each for each in Overlaps.__subclasses__() if not inspect.isabstract(each)}
    assert made == {OverlapsOfRows, OverlapsOfMoments}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Callable[[dict[str, Tensor], int | None], Overlaps]:
    return FORMS[request.param]


@pytest.mark.parametrize("split", SPLITS)
def test_weights_lengths_and_constants_are_those_of_centred_rows(form, split: int | None) -> None:
    layers = _layers()
    found = form(layers, split)
    centred = [rows - rows.mean(dim=0) for rows in layers.values()]
    squares = torch.stack([x.square().sum(dim=1) for x in centred], dim=1)
    assert (found.n, found.split) == (N, split)
    torch.testing.assert_close(found.weights, squares.sum(dim=0), rtol=1e-9, atol=1e-9)
    assert found.constant == [False, False, False, False, True]
    for i in range(len(layers)):
        for j in (i, *found.partners(i)):
            expected = squares[:, i] @ squares[:, j]
            torch.testing.assert_close(found.lengths[i, j], expected, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(found.lengths[j, i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_partners_are_all_later_layers_or_those_of_the_other_side(form, split: int | None) -> None:
    found = form(_layers(), split)
    count = len(WIDTHS)
    for i in range(count):
        later = range(i + 1, count) if split is None else range(split if i < split else count, count)
        assert list(found.partners(i)) == list(later)


@pytest.mark.parametrize("split", SPLITS)
def test_squares_axes_and_blocks_are_of_the_products_of_centred_rows(form, split: int | None) -> None:
    layers = _layers()
    found = form(layers, split)
    centred = [rows - rows.mean(dim=0) for rows in layers.values()]
    squares = found.squares()
    for i, x in enumerate(centred):
        for j in (i, *found.partners(i)):
            expected = (x.T @ centred[j]).square().sum()
            torch.testing.assert_close(squares[i, j], expected, rtol=1e-7, atol=1e-7)
    axes = found.axes()
    for i, (x, own) in enumerate(zip(centred, axes, strict=True)):
        values = torch.linalg.eigvalsh(x.T @ x).flip(0).clamp(min=0)
        torch.testing.assert_close(own.values[: len(values)], values, rtol=1e-7, atol=1e-6)
        mean = list(layers.values())[i].mean(dim=0)
        length = float(own.mean.square().sum()) + own.beside**2
        assert length == pytest.approx(float(mean.square().sum()), rel=1e-9)
        for j in found.partners(i):  # C on the axes has the singular values of C
            own_values = torch.linalg.svdvals(x.T @ centred[j])
            values = torch.linalg.svdvals(found.block(i, j))
            torch.testing.assert_close(values[: len(own_values)], own_values, rtol=1e-6, atol=1e-5)


def test_rows_of_a_wide_layer_are_read_on_the_smaller_side() -> None:
    layers = {name: rows[:20] for name, rows in _layers().items()}
    found = _rows(layers, None)
    axes = found.axes()
    assert [len(own.values) for own in axes] == [4, 9, 9, 20, 3]
    assert axes[3].rank == 19  # centring takes one


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("center", [True, False])
def test_every_measure_is_the_same_from_every_form(split: int | None, center: bool) -> None:
    layers = _layers()
    expected = similarities(FORMS["rows"](layers, split), groups(), center=center)
    assert expected.keys() == {each.name for each in PAIR_MEASURES.values() if each.distance_of is None}
    for form in FORMS.values():
        found = similarities(form(layers, split), groups(), center=center)
        for name, matrix in expected.items():
            torch.testing.assert_close(found[name], matrix, rtol=0, atol=1e-6, equal_nan=True)


MEASURED = [each for each in PAIR_MEASURES.values() if each.distance_of is None]


@pytest.mark.parametrize("each", PAIR_MEASURES.values(), ids=PAIR_MEASURES.keys())
def test_a_measure_of_pairs_says_what_it_is(each: PairMeasure) -> None:
    assert PAIR_MEASURES[each.name] is each
    assert each.name.isidentifier()
    assert each.title.strip()
    assert len(each.definition.split()) > 3
    assert not each.definition.endswith(".")
    assert sum(way is not None for way in (each.of_pair, each.of_all, each.distance_of)) == 1
    if each.distance_of is None:
        assert each.name in groups()[each.group]
    else:
        assert each.distance_of in PAIR_MEASURES


@pytest.mark.parametrize("each", MEASURED, ids=lambda each: each.name)
def test_a_measure_of_pairs_keeps_what_it_declares(each: PairMeasure) -> None:
    layers = _layers(500)  # enough for all numbers: near the chance level some have none
    matrix = measured(_rows(layers, None), [each.group]).matrices[each.name]
    names = list(layers)
    kept = [i for i, name in enumerate(names) if name != "constant"]
    gone = names.index("constant")
    for of_constant in (
        matrix[gone],
        matrix[:, gone],
    ):  # a layer that is the same on all samples has no number
        assert (of_constant.isnan() | (of_constant == 0)).all()
    inner = matrix[kept][:, kept]
    assert inner.isfinite().all()
    assert float(inner.max()) <= 1 + 1e-6
    if each.symmetric or each.of_all is not None:
        torch.testing.assert_close(inner, inner.T)
    b, c = names.index("b"), names.index("c")  # equal up to a rotation and a scale
    if each.name != "bures_null":
        assert float(matrix[b, c]) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(
            inner.diagonal(), torch.ones(len(kept), dtype=torch.float64), rtol=0, atol=1e-6
        )
    for i in kept:
        assert float(matrix[i, b]) == pytest.approx(float(matrix[i, c]), abs=1e-6)
    # Asked for with others it is the same.
    both = measured(_rows(layers, None), groups()).matrices[each.name]
    torch.testing.assert_close(both, matrix, rtol=0, atol=1e-9, equal_nan=True)


def test_overlaps_may_take_what_pairs_hold_and_leave_the_pairs_to_be_added_to() -> None:
    layers = _layers()
    for always in (0, 1 << 30):
        pairs = _held(layers, None, always)
        before = similarities(overlaps_of(copy.deepcopy(pairs)), ["cka"])["cka"]
        again = similarities(overlaps_of(pairs), ["cka"])["cka"]
        torch.testing.assert_close(again, before, equal_nan=True)
        pairs.add({name: rows[:30] for name, rows in layers.items()})
        assert pairs.n == N + 30
        more = similarities(overlaps_of(pairs), ["cka"])["cka"]
        assert math.isfinite(float(more[0, 1]))
        assert float((more - before)[:4, :4].abs().max()) > 0
