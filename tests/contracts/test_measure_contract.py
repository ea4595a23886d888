"""What every measure of a layer owes: words, an estimate in its range, none without data; and every sum: it adds up."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures import MEASURES, Measure, measure, own_sums
from ketwork.networks.moments import LayerSum, Vectors
from ketwork.networks.moments.device_numbers import numbers_of, read_numbers
from ketwork.quantum import Estimate
from ketwork.records import pack, unpack

D = 12


def _x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def _network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, D, dtype=dtype), nn.Tanh() if dtype.is_complex else nn.ReLU())


STUDIES = {
    "plain": lambda: kw.study(_network(), (_x(200, 6), torch.arange(200) % 3)),
    "two labels": lambda: kw.study(_network(), (_x(200, 6), _x(200, 6)[:, 0] > 0), normalize="ensemble"),
    "values": lambda: kw.study(_network(), (_x(200, 6), _x(200, 6)[:, :2]), center=True),
    "positions": lambda: kw.study(_network(), _x(60, 9, 6), mask=torch.rand(60, 9) > 0.3),
    "complex": lambda: kw.study(_network(torch.complex64), _x(80, 6, dtype=torch.complex64)),
    "sketched": lambda: kw.study(nn.Identity(), _x(900, 6).repeat(1, 10), memory=70_000),
    "in a range": lambda: kw.study(nn.Linear(6, 60), _x(900, 6)),
    "few": lambda: kw.study(_network(), (_x(3, 6), torch.arange(3))),
    "one": lambda: kw.study(_network(), _x(1, 6)),
    "one label": lambda: kw.study(_network(), (_x(40, 6), torch.ones(40, dtype=torch.long))),
    "zero": lambda: kw.study(nn.Identity(), (torch.zeros(20, D), torch.arange(20) % 2)),
    "equal and centred": lambda: kw.study(nn.Identity(), torch.ones(20, D), center=True),
}


@pytest.fixture(scope="module", params=STUDIES)
def record(request: pytest.FixtureRequest) -> kw.Study:
    record = STUDIES[request.param]()
    assert isinstance(record, kw.Study)
    return record


@pytest.mark.parametrize("each", MEASURES.values(), ids=MEASURES.keys())
def test_it_says_what_it_is(each: Measure) -> None:
    assert MEASURES[each.name] is each
    assert each.name.isidentifier()
    assert each.name == each.name.lower()
    for words in (each.title, each.definition, each.compute.__doc__ or each.definition):
        assert len(words.split()) > 0
        assert words == words.strip()
    assert not each.definition.endswith(".")
    assert each.sentence.startswith(each.definition)
    assert (f"[{each.unit}]" in each.sentence) == bool(each.unit)
    assert each.column is not None
    assert len(each.column.header) <= 14
    with pytest.raises(ValueError, match=f"there is a measure '{each.name}'"):
        measure(each.name, title="", definition="")(lambda state: Estimate())


@pytest.mark.parametrize("each", MEASURES.values(), ids=MEASURES.keys())
def test_it_stands_wherever_a_study_shows_its_numbers(each: Measure, record: kw.Study) -> None:
    declared = getattr(kw.Layer, each.name)
    assert isinstance(declared, property)
    assert declared.__doc__ == each.sentence
    assert each.name in dir(record[0])
    if each not in record.measures:
        assert each.name not in record.table()
        return
    table, long = record.table(), record.long()
    assert record.definitions[each.name] == each.sentence
    for name in (each.name, *([f"{each.name}_stderr"] if each.stderr else [])):
        assert table.attrs["units"][name] == each.unit
    for layer, value in zip(record, table[each.name], strict=True):
        assert value == layer.estimate(each.name).value or math.isnan(value)
    rows = long[long["quantity"] == each.name]
    assert rows["unit"].eq(each.unit).all()
    assert rows["layer"].tolist() == [layer.name for layer in record]


def _range(each: Measure, layer: kw.Layer) -> tuple[float, float]:
    """What no number of this unit can leave."""
    if each.name == "norm":
        return 0.0, math.inf
    if each.name == "linear_r2":
        return -math.inf, 1.0
    if each.unit == "":  # shares, scores and weights
        return 0.0, 1.0
    return {"bit": (0.0, math.log2(layer.d)), "dimensions": (1.0, layer.d)}[each.unit]


@pytest.mark.parametrize("each", MEASURES.values(), ids=MEASURES.keys())
def test_its_estimates_lie_in_their_range_with_errors_and_bounds(each: Measure, record: kw.Study) -> None:
    if each not in record.measures:
        return
    for layer in record:
        found = layer.estimate(each.name)
        assert type(found) is Estimate
        assert found.unit == each.unit
        assert math.isnan(found.stderr) or found.stderr >= 0
        assert each.stderr or math.isnan(found.stderr)
        low, high = _range(each, layer)
        slack = 1e-6 * max(abs(high), 1) if math.isfinite(high) else 0
        if each.name == "holevo_corrected":  # of labels that the layer does not know below 0 by chance
            low -= 4 * found.stderr if math.isfinite(found.stderr) else 0.0
        for value in (found.value, *(found.bounds or ())):
            assert math.isnan(value) or low - slack <= value <= high + slack, (layer, found)
        if found.bounds is not None:
            assert layer.sketch is not None
            assert found.low <= found.value <= found.high
        if each.show == "count":
            assert math.isnan(found) or found.value == round(found.value)


WITHOUT = {"dead": 1.0, "zero": 1.0, "sparsity": 1.0}
"""What is known of a layer that puts out nothing but zeros; no other number is."""


def test_without_data_there_is_no_number() -> None:
    for name in ("zero", "equal and centred"):
        record = STUDIES[name]()
        assert record is not None
        for each in record.measures:
            found = record[0].estimate(each.name)
            if name == "zero" and each.name in WITHOUT:
                assert found.value == WITHOUT[each.name]
                continue
            of_spectrum = each.needs == "layer" and each.name not in (*WITHOUT, "norm", "ket_coherence")
            if name == "zero" or of_spectrum:
                assert math.isnan(found.value), each.name
                assert math.isnan(found.stderr), each.name
                assert found.bounds is None
                assert str(found) == "–"


@pytest.mark.parametrize("each", [m for m in MEASURES.values() if m.needs != "layer"], ids=lambda m: m.name)
def test_without_labels_to_tell_apart_there_is_no_number(each: Measure) -> None:
    layer = STUDIES["plain"]()["1"]
    assert (each.name in layer.estimates) == (each.needs == "classes")
    unlabelled = kw.study(_network(), _x(20, 6))["1"]
    with pytest.raises(AttributeError, match=each.name):
        getattr(unlabelled, each.name)
    if each.needs == "classes":
        assert math.isnan(STUDIES["one label"]()["1"].estimate(each.name).value)
    else:
        constant = kw.study(_network(), (_x(60, 6), torch.full((60,), 2.5)))["1"]
        assert math.isnan(constant.estimate(each.name).value)


def test_a_sketch_bounds_what_it_touches() -> None:
    small = STUDIES["sketched"]()
    exact = kw.study(nn.Identity(), _x(900, 6).repeat(1, 10))
    assert small is not None
    assert small[0].sketch is not None
    bounded = {name for name, found in small[0].estimates.items() if found.bounds is not None}
    assert {"entropy", "effective_rank", "top_weight", "rank_kept", "coherence"} <= bounded
    assert exact is not None
    assert not any(found.bounds for found in exact[0].estimates.values())


# Sums of their own


def _vectors(n: int, seed: int, d: int = 7, dtype: torch.dtype = torch.float64) -> Vectors:
    draw = torch.Generator().manual_seed(seed)
    rows = (
        torch.randn(n, d, generator=draw, dtype=dtype)
        if dtype.is_complex
        else torch.relu(torch.randn(n, d, generator=draw, dtype=dtype))
    )
    return Vectors(rows, torch.arange(n) // 3)


SUMS = own_sums()


def _same(one: LayerSum, other: LayerSum) -> None:
    (header, tensors), (expected, others) = pack(one), pack(other)
    assert header.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, int | float):
            assert header[name] == pytest.approx(value, rel=1e-12), name
        else:
            assert header[name] == value, name
    for name, tensor in others.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-12, atol=1e-12)


def _sum(*parts: LayerSum) -> LayerSum:
    total = copy.deepcopy(parts[0])
    for part in parts[1:]:
        total += copy.deepcopy(part)
    return total


def test_every_sum_is_of_a_measure_and_of_a_kind_of_its_own() -> None:
    assert len(SUMS) > 0
    own = {cls for cls in LayerSum.kinds.values() if cls.__module__.startswith("ketwork.networks.measures.")}
    assert {*SUMS.values()} == own
    for kind, cls in LayerSum.kinds.items():
        assert cls.kind == kind
        assert dataclasses.is_dataclass(cls)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_sums_are_a_monoid(name: str, dtype: torch.dtype) -> None:
    parts = [_vectors(n, seed, dtype=dtype) for seed, n in enumerate((9, 30, 3))]
    a, b, c = (SUMS[name].from_vectors(part) for part in parts)
    starts = torch.tensor([0, 3, 13])
    every = Vectors(
        torch.cat([part.rows for part in parts]),
        torch.cat([part.samples + start for part, start in zip(parts, starts, strict=True)]),
    )
    nothing = SUMS[name].from_vectors(_vectors(0, 0, dtype=dtype))
    for total in (_sum(_sum(a, b), c), _sum(a, _sum(b, c)), _sum(c, a, b), _sum(nothing, a, b, c, nothing)):
        _same(total, SUMS[name].from_vectors(every))


@pytest.mark.parametrize("name", SUMS)
def test_sums_share_nothing_with_the_batch_and_come_back_from_files(name: str) -> None:
    batch = _vectors(12, 0)
    found = SUMS[name].from_vectors(batch)
    read_numbers(numbers_of([found]))
    before = copy.deepcopy(found)
    batch.rows.zero_()
    batch.samples.zero_()
    _same(found, before)
    _same(unpack(SUMS[name], *pack(found)), before)


@pytest.mark.parametrize("name", SUMS)
def test_a_study_in_parts_has_the_sum_of_one(name: str) -> None:
    x: Any = _x(90, 5, 6)
    parts = [kw.study(_network(), part) for part in x.split(30)]
    complete = kw.study(_network(), x, batch_size=90)
    total = sum(parts)
    for one, other in zip(total, complete, strict=True):
        _same(one.accumulator.sums[name], other.accumulator.sums[name])
        assert one.estimate(name).value == pytest.approx(other.estimate(name).value, rel=1e-9)
        assert one.estimate(name).stderr == pytest.approx(other.estimate(name).stderr, rel=1e-9)
