"""Files of version 0.1 give every number that they were saved with, and what they hold goes on being of use."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import ketwork as kw
from ketwork.networks.comparison import ComparedLayer
from ketwork.networks.measures import MEASURES, DecodedLabels
from ketwork.networks.measures.deletion import Deletion
from ketwork.records import files

FILES = Path(__file__).parent / "version_0_1"
NUMBERS = json.loads((FILES / "numbers.json").read_text())
STUDIES = ("study", "sketched", "complex")


def same(found: float | None, expected: float | None) -> bool:
    """Whether two numbers are equal; None stands for NaN."""
    none = [x is None or math.isnan(x) for x in (found, expected)]
    return all(none) or found == expected


def load(name: str) -> kw.Study:
    return kw.Study.load(FILES / f"{name}.safetensors")


@pytest.mark.parametrize("name", STUDIES)
def test_every_number_of_a_study(name: str) -> None:
    record = load(name)
    assert {(layer.name, layer.call) for layer in record} == {(row[0], row[1]) for row in NUMBERS[name]}
    for layer, call, measure, value, stderr, low, high in NUMBERS[name]:
        found = record[layer, call].estimates[measure]
        bounds = found.bounds or (None, None)
        pairs = ((found.value, value), (found.stderr, stderr), (bounds[0], low), (bounds[1], high))
        assert all(same(*pair) for pair in pairs), (layer, measure, found)
        assert found.unit == MEASURES[measure].unit
    long = record.long().set_index(["layer", "call", "quantity"])
    for layer, call, measure, *numbers in NUMBERS[name]:
        row = long.loc[(layer, call, measure), ["value", "stderr", "low", "high"]]
        assert all(same(*pair) for pair in zip(row.tolist(), numbers, strict=True)), (layer, measure)


@pytest.mark.parametrize("name", STUDIES)
def test_what_was_gathered_gives_the_numbers_again(name: str) -> None:
    record = load(name)
    for layer in record:
        assert layer.accumulator.samples == layer.N == record.samples
        for measure, estimate in layer.estimates.items():
            if MEASURES[measure].needs != "layer":
                continue
            again = MEASURES[measure](layer.state())
            assert estimate.plain == estimate.value or math.isnan(
                estimate.value
            )  # the file's numbers are plain
            if measure == "participation_ratio" and again.bounds is None:  # which was without bias then
                purity = Deletion(layer.state()).purity[1]
                # Lengths less the mean in float64 give 2.161340804114; version 0.1 was 8e-9 off, by its float32 ones.
                rel = 1e-8 if name == "complex" else 1e-9
                assert estimate.value == pytest.approx(min(max(1 / purity, 1), layer.d), rel=rel)
                continue
            assert again.plain == pytest.approx(estimate.value, rel=1e-9, abs=1e-12, nan_ok=True), measure
            if not again.corrected:
                assert again.stderr == pytest.approx(estimate.stderr, rel=1e-9, abs=1e-12, nan_ok=True), (
                    measure
                )
        if layer.labels is None:
            continue
        again = DecodedLabels.from_moments(layer.labels.moments, layer.labels.names)
        assert again.strengths == layer.labels.strengths
        for measure, estimate in layer.labels.estimates.items():
            if measure == "holevo_null":  # permutes whole samples now, of a formula of its own
                continue
            # R² of products in float64 is −4.556439965520; version 0.1 was 5e-8 off, by its float32 products.
            rel = 2e-8 if measure == "linear_r2" else 1e-9
            assert again.estimates[measure].value == pytest.approx(estimate.value, rel=rel), measure
        for kind, counts in layer.labels.confusion.items():
            assert torch.equal(again.confusion[kind], counts)


def test_measures_that_came_later_are_computed_where_they_can_be() -> None:
    record = load("study")
    assert "rank_kept" not in record["emb"].estimates
    kept = record["emb"].density.spectrum().cumsum(0)
    rank = int(record["emb"].rank_kept)
    assert kept[rank - 1] >= 0.99 > kept[rank - 2]
    assert record.table()["rank_kept"].tolist() == [layer.rank_kept.value for layer in record]
    share = record["emb"].coherence / (record["emb"].coherence.value + record["emb"].entropy.value)
    assert record["emb"].coherent_share.plain == pytest.approx(share.value)


@pytest.mark.parametrize("name", STUDIES)
def test_settings_labels_and_the_plan(name: str) -> None:
    record, header = load(name), _header(FILES / f"{name}.safetensors")
    assert "samples" not in record.settings
    assert record.settings["max_samples"] == header["settings"].pop("samples")
    assert record.settings.items() >= header["settings"].items()
    assert (record.samples, record.complete, record.error) == (header["samples"], True, None)
    assert record.skipped == header["skipped"]
    assert record.streams == tuple(header["streams"])
    assert (record.plan is None) == (header["plan"] is None)
    if record.plan is not None:
        for share, old in zip(record.plan.shares, header["plan"]["shares"], strict=True):
            assert [share.layer, share.d, share.rank, share.moment] == [
                old["layer"], old["d"], old["rank"], old["moment"],
            ]  # fmt: skip
    for layer, old in zip(record, header["layers"], strict=True):
        assert [layer.kind, layer.info.leaf, layer.info.axis] == [old["kind"], old["leaf"], old["axis"]]
        assert (layer.kets, layer.d) == (old["statistics"]["kets"], old["statistics"]["d"])
        known = old["knowledge"]
        assert (layer.labels is None) == (known is None)
        if known is not None:
            assert list(layer.labels.names) == known["names"]
            assert layer.labels.strengths == known["strengths"]


def test_every_number_of_a_comparison() -> None:
    found = kw.Comparison.load(FILES / "comparison.safetensors")
    assert {name: matrix.tolist() for name, matrix in found.matrices.items()} == NUMBERS["comparison"]
    assert (found.n, found.complete, found.itself) == (40, True, False)
    assert [layer.name for layer in found.rows] == ["0", "1", "2"]
    assert found.settings["unit"] == "sample"  # which was called "pooled"


def test_every_number_of_a_studys_comparison_and_the_moments_that_give_them() -> None:
    record = load("study")
    found = record.compare()
    assert {name: matrix.tolist() for name, matrix in found.matrices.items()} == NUMBERS[
        "comparison of study"
    ]
    assert record.pairs is not None
    named = {layer.info.key: ComparedLayer.from_info(layer.info, layer.d) for layer in record}
    again = kw.Comparison.from_pairs(record.pairs, named, found.settings, {})
    for name, matrix in found.matrices.items():
        torch.testing.assert_close(again.matrices[name], matrix, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_every_number_of_a_collapse_curve() -> None:
    found = kw.CollapseCurve.load(FILES / "curve.safetensors")
    table = found.table()
    columns = ["layer", "rank", "value", "value_stderr", "change", "change_stderr", "keeps"]
    assert table[columns].to_numpy().tolist() == NUMBERS["curve"]
    assert found.criterion == "KL (nats) ≤ 0.01"
    assert (found.samples, found.passes, found.original.value) == (40, 6, 0.0)


def test_a_compressed_network() -> None:
    path = FILES / "compressed.safetensors"
    model = kw.load_compressed(str(path), nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)))
    weights = load_file(path)
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {
        name: tuple(t.shape) for name, t in weights.items()
    }
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    inner = (x @ weights["0.weight"].T + weights["0.bias"]).relu()
    torch.testing.assert_close(model(x), inner @ weights["2.weight"].T + weights["2.bias"])


READERS = {
    **dict.fromkeys(STUDIES, kw.Study),
    "comparison": kw.Comparison,
    "curve": kw.CollapseCurve,
}


@pytest.mark.parametrize("name", READERS)
def test_saved_again_it_is_the_same(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    found = reader.load(FILES / f"{name}.safetensors")
    table = found.table()  # which computes the measures that came later
    found.save(tmp_path / "again")
    again = reader.load(tmp_path / "again")
    assert again.table().equals(table)
    assert repr(again) == repr(found)
    again.save(tmp_path / "once more")
    assert (tmp_path / "once more").read_bytes() == (tmp_path / "again").read_bytes()
    assert _header(tmp_path / "again")["schema"] == 2


@pytest.mark.parametrize("name", READERS)
def test_a_field_that_this_version_does_not_know_is_ignored(name: str, tmp_path: Path) -> None:
    path, reader = FILES / f"{name}.safetensors", READERS[name]
    header = _header(path)
    header |= {"invented later": {"x": [1, 2]}}
    for layer in header.get("layers", header.get("rows")):
        layer["invented later"] = None
    _write(tmp_path / "more", load_file(path), header)
    assert reader.load(tmp_path / "more").table().equals(reader.load(path).table())


@pytest.mark.parametrize(
    ("name", "field", "default"),
    [
        ("study", ("comparison",), None),
        ("study", ("error",), None),
        ("study", ("gathered", "notes"), []),
        ("study", ("gathered", "plan"), None),
        ("study", ("gathered", "layers", 0, "info", "aliases"), ()),
        ("study", ("gathered", "layers", 0, "sums"), {}),
        ("study", ("layers", 0, "decoding", "discarded"), 0.0),
        ("comparison", ("rows", 0, "aliases"), ()),
        ("comparison", ("errors",), {}),
        ("comparison", ("error",), None),
    ],
)
def test_a_field_that_a_file_lacks_takes_its_default(
    name: str, field: tuple[Any, ...], default: Any, tmp_path: Path
) -> None:
    reader, path = READERS[name], tmp_path / "record"
    found = reader.load(FILES / f"{name}.safetensors")
    found.save(path)
    tensors, header = load_file(path), _header(path)
    place = header
    for step in field[:-1]:
        place = place[step]
    del place[field[-1]]
    _write(path, tensors, header)
    again: Any = reader.load(path)
    if field[-1] == "discarded":
        field = ("layers", 0, "labels", "decoding", "discarded")
    for step in field:
        again = again[step] if isinstance(step, int) else getattr(again, step)
    assert again == default


def test_it_can_be_added_to(tmp_path: Path) -> None:
    record = load("study")
    twice = record + record
    assert twice.samples == 48
    for layer in twice:
        old = record[layer.name]
        torch.testing.assert_close(layer.density.matrix(), old.density.matrix())
        assert layer.entropy.plain == pytest.approx(old.entropy.plain, rel=1e-6)
        assert set(layer.labels.names) == set(old.labels.names)
    twice.save(tmp_path / "twice")
    assert kw.Study.load(tmp_path / "twice").table().equals(twice.table())


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ketwork"])


def _write(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    files.write_tensors(path, tensors, {k: v for k, v in header.items() if k != "digest"}, "ketwork")
