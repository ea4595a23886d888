"""Studies on disk, and what they say of how their layers compare."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ketwork as kw
from ketwork.networks.activations.reading import Reading
from ketwork.networks.study.result import SCHEMA, Study
from ketwork.networks.study.run import StudyError, study
from ketwork.records import files as _files
from ketwork.records.record import pack


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10), nn.Tanh())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_numbers_are_those_of_compare(network: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    study = kw.study(network, images, compare=True)
    expected = kw.compare(network, images)
    study.save(tmp_path / "study.safetensors")
    for found in (study.compare(), kw.Study.load(tmp_path / "study.safetensors").compare()):
        assert list(found.matrices) == list(expected.matrices)
        for name, matrix in expected.matrices.items():
            torch.testing.assert_close(found.matrices[name], matrix, rtol=0, atol=1e-12, equal_nan=True)
        for how in ("unit", "normalize", "center"):  # the study's own kets have weight 1 and are not centred
            assert found.settings[how] == expected.settings[how]
        assert found.cka.index.to_list() == [layer.name for layer in study]


def test_without_the_rows_the_remedy_is_named(network: nn.Module, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="compare=True"):
        kw.study(network, images).compare()


class Overflows(nn.Module):
    """Large values become NaN, as in a narrow network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.abs() > 50, torch.nan, x)


def test_a_sample_left_out_at_one_layer_is_compared_at_none(network: nn.Module, images: torch.Tensor) -> None:
    narrow = nn.Sequential(*network[:4], Overflows())
    spoilt = torch.cat([images[:50], 1e4 * images[:1], images[50:]])  # finite until the last layer
    study = kw.study(narrow, spoilt, compare=True, reading=Reading(skip_bad=True))
    expected = kw.compare(narrow, images, measures=["cka"])
    assert [layer.N for layer in study] == [201, 201, 201, 200]
    assert study.compare().n == 200
    torch.testing.assert_close(study.compare().matrices["cka"], expected.matrices["cka"], rtol=0, atol=1e-9)


def _study(complex_: bool = False) -> Study:
    torch.manual_seed(0)
    dtype = torch.complex64 if complex_ else torch.float32
    network = nn.Sequential(
        nn.Linear(5, 40, dtype=dtype), nn.Tanh(), nn.Dropout(), nn.Linear(40, 3, dtype=dtype)
    )
    return study(network, torch.randn(30, 4, 5, dtype=dtype), mask=torch.ones(30, 4))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "one.study"
    _study().save(path)
    return path


@pytest.mark.parametrize("complex_", [False, True])
def test_a_study_comes_back_equal(tmp_path: Path, complex_: bool) -> None:
    record = _study(complex_)
    record.save(tmp_path / "one.study")
    back = Study.load(tmp_path / "one.study")
    assert (back.skipped, back.settings, back.samples, back.complete, back.error, back.notes) == (
        record.skipped, record.settings, record.samples, True, None, record.notes,
    )  # fmt: skip
    assert back.table().equals(record.table())
    assert back.long().equals(record.long())
    assert repr(back) == repr(record)
    for one, other in zip(back, record, strict=True):
        (head, mine), (expected, theirs) = pack(one.stored()), pack(other.stored())
        assert head == expected
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert torch.equal(one.density.matrix(), other.density.matrix())
    back.save(tmp_path / "two.study")
    assert (tmp_path / "two.study").read_bytes() == (tmp_path / "one.study").read_bytes()


def test_a_study_that_ended_early_says_so_when_it_comes_back(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as raised:
        study(nn.Linear(5, 3), [torch.ones(4, 5), torch.ones(4, 6)])
    raised.value.partial.save(tmp_path / "one.study")
    back = Study.load(tmp_path / "one.study")
    assert (back.complete, back.samples) == (False, 4)
    assert str(back.error).startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")


def test_a_loaded_study_can_be_added_to(saved: Path) -> None:
    a, b = (Study.load(saved)["0"].accumulator for _ in range(2))
    a += b
    assert (a.samples, a.kets) == (60, 240)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="Argument `path` must be a saved study, but there is no file"
    ):
        Study.load(tmp_path / "none.study")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ValueError, match=r"Argument `path` must be a saved study, but .* not a complete safetensors file"
    ):
        Study.load(saved)


def test_files_of_something_else(saved: Path) -> None:
    for metadata in (
        None,
        {"ketwork": "{"},
        {"ketwork": "3"},
        {"ketwork": '{"kind": "comparison", "schema": 1}'},
    ):
        save_file({"x": torch.ones(2)}, saved, metadata=metadata)
        with pytest.raises(ValueError, match="is a safetensors file of something else"):
            Study.load(saved)


def test_files_of_a_newer_schema(saved: Path) -> None:
    save_file(
        {"x": torch.ones(2)}, saved, metadata={"ketwork": json.dumps({"kind": "study", "schema": SCHEMA + 1})}
    )
    with pytest.raises(
        ValueError, match=rf"has schema {SCHEMA + 1}: a newer ketwork wrote it. Upgrade ketwork"
    ):
        Study.load(saved)


def test_files_that_lack_a_part(saved: Path) -> None:
    tensors = load_file(saved)
    _files.write_tensors(saved, tensors, {"kind": "study", "schema": SCHEMA}, "ketwork")
    with pytest.raises(ValueError, match="lacks a part of one"):
        Study.load(saved)


def test_fuzzed_headers_never_end_in_anything_but_a_value_error(saved: Path) -> None:
    whole, draw = saved.read_bytes(), random.Random(0)
    size = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 4, 30))):
            damaged[draw.randrange(size)] = draw.randrange(256)
        saved.write_bytes(damaged)
        try:
            Study.load(saved)
        except ValueError as error:
            assert "Argument `path` must be a s" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 150


def test_rows_are_found_by_name_call_and_place() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    network = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared)
    record = study(network, torch.randn(30, 4), layers="all")
    names = [(layer.name, layer.call) for layer in record]
    assert [record[i] for i in range(len(record))] == list(record) == list(record.layers)
    assert record[-1] is record.layers[-1]
    assert record[1:] == record.layers[1:]
    assert record[::-1] == record.layers[::-1]
    for layer in record:
        assert record[layer.name, layer.call] is layer
        assert layer in record
        for alias in layer.aliases:
            assert record[alias, layer.call].name in (layer.name, alias)
            assert alias in record
    assert record["0.0"].call == 0
    assert record["0.0", 1] is record[-1]
    assert ("0.0", 1) in record
    assert names.count(("0.0", 0)) == 1
    assert "nothing" not in record
    assert ("0.0", 7) not in record
    assert 3.5 not in record
    with pytest.raises(KeyError, match=r"No layer 'nothing' in this study; it has 0\.0, 0"):
        record["nothing"]
    with pytest.raises(KeyError, match="No layer"):
        record["0.0", 7]
    with pytest.raises(IndexError):
        record[len(record)]


def test_a_described_study_keeps_its_numbers(tmp_path: Path) -> None:
    record = _study()
    told = record.described(("a note",), source={"model": {"path": "x"}})
    assert told.table().equals(record.table())
    assert told.notes == (*record.notes, "a note")
    assert told.warnings[: len(told.notes)] == list(told.notes)
    assert told.settings == record.settings | {"source": {"model": {"path": "x"}}}
    told.save(tmp_path / "told")
    back = Study.load(tmp_path / "told")
    assert (back.notes, back.settings) == (told.notes, told.settings)


def test_a_loader_that_fails_raises_with_what_it_gave_before() -> None:
    def data(failure: Exception) -> Iterator[torch.Tensor]:
        yield torch.randn(64, 4)
        raise failure

    for failure in (TypeError("not a tensor"), OSError("disk gone")):
        with pytest.raises(StudyError, match=f"{type(failure).__name__}: {failure}") as raised:
            study(nn.Linear(4, 3), data(failure))
        assert raised.value.__cause__ is failure
        partial = raised.value.partial
        assert isinstance(partial, Study)
        assert (partial.samples, partial.complete) == (64, False)
        assert partial.error == f"{type(failure).__name__}: {failure}"
        assert any("after 64 samples" in warning for warning in partial.warnings)
        with pytest.raises(type(failure)):  # with no batch before it there is nothing to keep
            study(nn.Linear(4, 3), _raises(failure))


def _raises(failure: Exception) -> Iterator[torch.Tensor]:
    raise failure
    yield torch.ones(1)


def test_errors_of_the_caller_are_raised_too() -> None:
    def progress(done: int) -> None:
        raise ZeroDivisionError("in the caller's function")

    with pytest.raises(StudyError, match="ZeroDivisionError: in the caller's function") as raised:
        study(nn.Linear(4, 3), torch.randn(64, 4), batch_size=32, progress=progress)
    assert raised.value.partial.samples == 32
