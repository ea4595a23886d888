"""What every record owes: it comes back as it was, unknown fields are ignored, and a bad field is named."""

import contextlib
import copy
import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.collapse.curve import CollapseCurve
from ketwork.networks.comparison.accumulator import ComparisonAccumulator
from ketwork.networks.comparison.result import ComparedLayer, Comparison
from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.survey import Survey, Surveyed
from ketwork.networks.detection.detector import Detector
from ketwork.networks.moments import SampleRatio, Vectors
from ketwork.networks.moments.class_moments import ClassMoments
from ketwork.networks.moments.device_numbers import numbers_of, read_numbers
from ketwork.networks.moments.pair_moments import PairMoments
from ketwork.networks.monitor.firing import Firing
from ketwork.networks.study.gathering import GatheringState
from ketwork.networks.study.layer import StoredLayer
from ketwork.networks.study.result import StoredStudy
from ketwork.networks.study.small import parts_of
from ketwork.quantum import Estimate
from ketwork.records import Checkpoint, Form, Kinds, Malformed, pack, read_parts, unpack
from ketwork.records.record import Unknown

ROOTS = (
    StoredStudy, StoredLayer, GatheringState, Comparison, ComparisonAccumulator, CollapseCurve, Survey, Detector,
)  # fmt: skip
"""The records that are written to files or go from process to process; the others are parts of them."""


def classes(hint: Any, seen: set[Any]) -> Iterator[type]:
    """The record classes that a type hint names, with those of their fields."""
    for part in get_args(hint):
        yield from classes(part, seen)
    if not isinstance(hint, type) or hint is Estimate or hint in seen:
        return
    seen.add(hint)
    if hasattr(hint, "Stored"):
        yield from classes(hint.Stored, seen)
    elif "kinds" in vars(hint):
        yield from (each for kind in hint.kinds.values() for each in classes(kind, seen))
    elif dataclasses.is_dataclass(hint):
        yield hint
        for name, inner in get_type_hints(hint).items():
            if not name.startswith("_") and get_origin(inner) is not typing.ClassVar:
                yield from classes(inner, seen)


SEEN: set[Any] = set()
CLASSES = {cls.__name__: cls for root in ROOTS for cls in classes(root, SEEN)}


def parts(value: Any) -> Iterator[Any]:
    """A record and all records in it."""
    if hasattr(value, "stored"):
        value = value.stored()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        value = {field.name: getattr(value, field.name) for field in fields(type(value))}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from parts(inner)


def fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if not field.name.startswith("_")]


def stored(record: kw.Study) -> StoredStudy:
    layers = [layer.stored(complete=False) for layer in record]
    return StoredStudy(
        record.gathered, layers, record.settings, record.skipped, "it broke off", record.comparison
    )


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[type, list[Any]]:
    """Records of every class, as passes make them."""
    torch.manual_seed(0)
    x = torch.randn(60, 4)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    labelled = kw.study(net, (x, torch.arange(60) % 3), compare=True)
    values = kw.study(net, (x, torch.randn(60, 2)), memory="500MB")
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[0].weight *= 1.1
    positions = kw.study(nn.Linear(4, 3), torch.randn(30, 5, 4), center=True, normalize="ensemble")
    complex_ = kw.study(nn.Linear(4, 3, dtype=torch.complex64), x.to(torch.complex64))
    wide = kw.study(nn.Identity(), x.repeat(1, 15), memory=70_000)
    assert wide[0].sketch is not None
    ranged = kw.study(nn.Linear(4, 60), x)
    assert ranged[0].accumulator.moment.ranged is not None
    few = kw.study(nn.Identity(), x[:20].repeat(1, 25))
    cut = ClassMoments.from_vectors(torch.randn(200, 8), torch.arange(200) % 20, 20, most=2000)
    assert cut.total is not None
    folder = tmp_path_factory.mktemp("checkpoint")
    kw.study(net, (x, torch.arange(60) % 3), batch_size=20, compare=True, checkpoint=Checkpoint(folder))
    (path,) = folder.glob("after-*")
    tensors, header = read_parts(path, "checkpoint", 2)
    state = unpack(GatheringState, header["state"], tensors)
    projected = PairMoments(memory=40_000, seed=3, always=0)
    for _ in range(3):
        projected.add({"a": torch.randn(40, 60), "b": torch.randn(40, 50)}, {"c": torch.randn(40, 40)})
    assert projected.projections
    summed = PairMoments(always=0)
    summed.add({("a", 0): torch.randn(50, 3), ("b", 1): torch.randn(50, 2)})
    assert summed.form == "moments"
    layer = ComparedLayer("a", "Linear", 60, 40, ("b",))
    curve = kw.collapse_curve(net, x, ranks=[1, 2])
    scatter = Scatter(20, torch.ones(4).double(), torch.ones(4).double(), torch.eye(4).double())
    seen = Surveyed("inputs", scatter, torch.eye(3).double(), 20, (20, 4))
    tokens = kw.study(nn.Linear(4, 5), (torch.randn(60, 3, 4), torch.arange(60) % 2))
    detector = tokens.detector(
        positions="both", model=nn.Linear(4, 5), calibration=torch.randn(50, 3, 4), layers=tokens[0].name
    )
    firing = Firing.from_vectors(Vectors(torch.eye(4), torch.arange(4)))
    ratio = SampleRatio.from_values(torch.ones(4), torch.arange(4))
    read_numbers(numbers_of([firing, ratio]))
    roots = [
        *map(stored, (labelled, values, positions, complex_, wide, ranged, few)),
        *(
            StoredStudy(*parts_of(each.gathered, each.layers, 2)[0], each.settings, {})
            for each in (labelled, wide)
        ),
        *(each.stored() for each in (labelled[0], values[0], positions[0], complex_[0], wide[0])),
        state,
        labelled.compare(),
        kw.compare(net, x, scaled),
        ComparisonAccumulator(projected, [(["model", "a", 0], layer)], {"b": "it never ran"}),
        ComparisonAccumulator(summed, [], {}),
        curve,
        detector,
        kw.study(net, (torch.randn(400, 4), torch.arange(400) % 3)).detector("mahalanobis", layers="0"),
        cut,
        firing,
        ratio,
        Survey({"0": seen, "1": Surveyed("outputs")}, 20, 20, True, ["0"]),
    ]
    found: dict[type, list[Any]] = {}
    for root in roots:
        for part in parts(root):
            found.setdefault(type(part), []).append(part)
    return found


def test_no_class_of_records_goes_without_examples(examples: dict[type, list[Any]]) -> None:
    assert {*CLASSES.values()} <= examples.keys()
    assert {*ROOTS} <= {*CLASSES.values()}


def fullest(examples: dict[type, list[Any]], cls: type) -> Any:
    """The example in which the most is said."""
    return max(
        examples[cls], key=lambda each: sum(getattr(each, field.name) is not None for field in fields(cls))
    )


@pytest.mark.parametrize("name", CLASSES)
def test_it_comes_back_as_it_was(name: str, examples: dict[type, list[Any]]) -> None:
    cls = CLASSES[name]
    for example in examples[cls][:20]:
        header, tensors = pack(example)
        text = json.dumps(header, allow_nan=False)
        back = unpack(cls, json.loads(text), {place: tensor.clone() for place, tensor in tensors.items()})
        again, others = pack(back)
        assert json.dumps(again, allow_nan=False) == text
        assert others.keys() == tensors.keys()
        for place, tensor in tensors.items():
            assert torch.equal(others[place], tensor), place
            assert others[place].dtype == tensor.dtype, place


@pytest.mark.parametrize("name", CLASSES)
def test_a_field_of_a_later_version_is_ignored(name: str, examples: dict[type, list[Any]]) -> None:
    cls = CLASSES[name]
    header, tensors = pack(fullest(examples, cls))
    assert pack(unpack(cls, header | {"invented later": [1, {}]}, dict(tensors)))[0] == header


@pytest.mark.parametrize("name", CLASSES)
def test_fields_with_defaults_may_be_missing_and_the_others_are_named(
    name: str, examples: dict[type, list[Any]]
) -> None:
    cls = CLASSES[name]
    header, tensors = pack(fullest(examples, cls))
    for field in fields(cls):
        less = {key: value for key, value in header.items() if key != field.name}
        default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if default:
            with contextlib.suppress(Malformed):  # other fields may need it, and then say so
                unpack(cls, less, dict(tensors))
        else:
            with pytest.raises(Malformed, match=f"missing required field `{field.name}`"):
                unpack(cls, less, dict(tensors))


JSON = {
    "number": 3.5,
    "whole": 3,
    "text": "wrong",
    "truth": True,
    "object": {"x": []},
    "list": [[[]]],
    "null": None,
}


@cache
def accepted(hint: Any) -> frozenset[str]:
    """The kinds of JSON that a type may be written as."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return frozenset(JSON)
    if get_origin(hint) is typing.Annotated:
        return accepted(get_args(hint)[0])
    if get_origin(hint) in (typing.Union, types.UnionType):
        return frozenset().union(*map(accepted, get_args(hint)))
    if get_origin(hint) is typing.Literal:
        return frozenset()  # of texts a few
    origin = get_origin(hint) or hint
    if origin in (list, tuple, Estimate):
        return frozenset({"list"})
    if (
        origin is dict
        or hasattr(origin, "Stored")
        or issubclass(origin, Kinds)
        or dataclasses.is_dataclass(origin)
    ):
        return frozenset({"object"})
    return {
        int: frozenset({"whole"}),
        float: frozenset({"whole", "number"}),
        str: frozenset({"text"}),
        bool: frozenset({"truth"}),
        type(None): frozenset({"null"}),
        Tensor: frozenset(),  # the name of one that is there, and not taken
    }[origin]


@pytest.mark.parametrize("name", CLASSES)
def test_a_field_of_another_type_is_refused_and_named(name: str, examples: dict[type, list[Any]]) -> None:
    cls = CLASSES[name]
    header, tensors = pack(fullest(examples, cls))
    tried = 0
    for field in fields(cls):
        hint = get_type_hints(cls, include_extras=True)[field.name]
        for kind in JSON.keys() - accepted(hint):
            with pytest.raises(Malformed) as raised:
                unpack(cls, header | {field.name: JSON[kind]}, dict(tensors))
            assert str(raised.value).startswith(field.name), (field.name, kind, str(raised.value))
            tried += 1
    assert tried > len(fields(cls))


FORMED = [
    (name, field)
    for name, cls in CLASSES.items()
    for field, hint in get_type_hints(cls, include_extras=True).items()
    for option in ([hint] if get_origin(hint) is typing.Annotated else get_args(hint))
    if any(isinstance(extra, Form) for extra in getattr(option, "__metadata__", ()))
]


@pytest.mark.parametrize(("name", "field"), FORMED)
def test_a_tensor_of_another_form_is_refused_and_named(
    name: str, field: str, examples: dict[type, list[Any]]
) -> None:
    cls = CLASSES[name]
    example = next(each for each in examples[cls] if getattr(each, field) is not None)
    header, tensors = pack(example)
    right = getattr(example, field)
    wrong = (
        [right.to(torch.bool), right[None], right.flatten()[:1].reshape(()).clone()]
        if right.numel()
        else [right[None]]
    )
    if right.is_floating_point() or right.is_complex():
        wrong += [torch.full_like(right, torch.inf)] if right.numel() else []
    for tensor in wrong:
        with pytest.raises(Malformed, match=f"tensor '{field}'"):
            unpack(cls, header, tensors | {field: tensor})


def test_a_record_of_an_unknown_kind_is_skipped_and_not_an_error(tmp_path: Path) -> None:
    record = kw.study(nn.ReLU(), torch.randn(30, 3))
    header, tensors = pack(stored(record))
    sums = header["gathered"]["layers"][0]["sums"]
    assert "sparsity" in sums
    sums["invented later"] = {"kind": "invented later", "x": 1, "y": {"z": []}}
    back = unpack(StoredStudy, header, tensors)
    assert back.gathered.layers[0].sums.keys() == {"sparsity", "sinks", "sink_weight"}
    assert not any(isinstance(part, Unknown) for part in back.gathered.layers[0].sums.values())


def test_the_place_of_a_bad_part_is_its_whole_way(tmp_path: Path) -> None:
    record = kw.study(nn.Linear(3, 2), (torch.randn(30, 3), torch.arange(30) % 2), compare=True)
    header, tensors = pack(stored(record))
    for way, place in (
        (("gathered", "layers", 0, "moment", "n"), "gathered.layers[0].moment.n"),
        (("gathered", "layers", 0, "labelled", "held", "kets"), "gathered.layers[0].labelled.held.kets"),
        (("gathered", "pairs", "memory"), "gathered.pairs.memory"),
        (("comparison", "rows", 0, "d"), "comparison.rows[0].d"),
        (("layers", 0, "normalize"), "layers[0].normalize"),
    ):
        bad = json.loads(json.dumps(header))
        inner = bad
        for step in way[:-1]:
            inner = inner[step]
        inner[way[-1]] = {"x": 1}
        with pytest.raises(Malformed) as raised:
            unpack(StoredStudy, bad, dict(tensors))
        assert str(raised.value).startswith(f"{place}: "), str(raised.value)
