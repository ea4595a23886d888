"""Activations in files give the record of the network that put them out: the same numbers, to the bit."""

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import ketwork as kw
from ketwork.networks.study import StudyError, StudyInterrupted, study_activations

from ..activations.language import MASK, TOKENS, llama

LAYERS = ["model.layers.0", "model.layers.1"]
CLASSES = torch.arange(12) % 2
NAMES = np.array(["no", "yes"])[CLASSES]


def _put_out(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What plain hooks see of two blocks."""
    model = llama()
    seen: dict[str, list[Tensor]] = {name: [] for name in LAYERS}

    def note(name: str) -> Callable[..., None]:
        # A block of older versions of transformers puts out a tuple.
        return lambda module, inputs, output: seen[name].append(
            (output[0] if isinstance(output, tuple) else output).detach().clone()
        )

    for name in LAYERS:
        model.get_submodule(name).register_forward_hook(note(name))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return {name: torch.cat(parts) for name, parts in seen.items()}


BATCHES = [{"input_ids": TOKENS[i : i + 4], "attention_mask": MASK[i : i + 4]} for i in (0, 4, 8)]
ARRAYS = _put_out(BATCHES)
BESIDE = {"mask": MASK, "inputs": TOKENS, "labels": CLASSES}


def _rows(record: kw.Study) -> dict[tuple[str, int], list[str]]:
    """All of a record's numbers, as words, since NaN equals nothing."""
    return {
        (layer.name, layer.call): [f"{e.value!r} {e.stderr!r} {e.plain!r}" for e in layer.estimates.values()]
        for layer in record
    }


def _assert_close(record: kw.Study, expected: kw.Study, rel: float) -> None:
    """All values and standard errors agree; those of other batches have another rounding."""
    for mine, other in zip(record, expected, strict=True):
        for name, estimate in mine.estimates.items():
            right = other.estimates[name]
            assert estimate.value == pytest.approx(right.value, rel=rel, abs=1e-7, nan_ok=True), name
            assert estimate.stderr == pytest.approx(right.stderr, rel=rel, abs=1e-7, nan_ok=True), name


def _of_model(labels: Any = CLASSES, **more: Any) -> kw.Study:
    return kw.study(llama(), BATCHES, layers=LAYERS, labels=labels, **more)


def _cut(*places: int) -> list[dict[str, Tensor]]:
    """The arrays in shards that end at these places."""
    whole = ARRAYS | BESIDE
    return [
        {name: array[start:stop].contiguous() for name, array in whole.items()}
        for start, stop in zip((0, *places), (*places, 12), strict=True)
    ]


def _safetensors(folder: Path) -> Path:
    for i, shard in enumerate(_cut(5, 6)):
        save_file(shard, folder / f"part-{i + 9}.safetensors")  # 9, 10, 11: by number, not by letter
    return folder


def _npz(folder: Path) -> Path:
    for i, shard in enumerate(_cut(7)):
        save = np.savez_compressed if i else np.savez
        save(folder / f"{i}.npz", **{name: array.numpy() for name, array in shard.items()})
    return folder


def _npy(folder: Path) -> Path:
    for i, shard in enumerate(_cut(3)):
        (folder / f"shard-{i}").mkdir()
        for name, array in shard.items():
            np.save(folder / f"shard-{i}" / f"{name}.npy", array.numpy())
    return folder


@pytest.mark.parametrize("write", [_safetensors, _npz, _npy])
def test_the_record_is_that_of_the_network_whatever_the_files(write: Any, tmp_path: Path) -> None:
    record = kw.study_activations(write(tmp_path), batch_size=4, compare=True)
    expected = _of_model(compare=True)
    assert _rows(record) == _rows(expected)
    assert record.samples == 12
    assert record.settings["task"] == "classes"
    assert record.comparison is not None
    assert expected.comparison is not None
    assert record.comparison.cka.equals(expected.comparison.cka)
    assert record.streams == expected.streams
    assert record.notes == expected.notes


@pytest.mark.parametrize(
    "more", [{"normalize": "ensemble"}, {"center": True}, {"memory": "23MB"}, {"seed": 7}]
)
def test_settings_mean_the_same(more: Any) -> None:
    assert _rows(kw.study_activations(_cut(5), batch_size=4, **more)) == _rows(_of_model(**more))


@pytest.mark.parametrize("positions", ["no-sinks", "last", slice(1, 3), MASK * (TOKENS % 2)])
def test_some_positions_are_read(positions: Any) -> None:
    record = kw.study_activations(_cut(5), batch_size=4, positions=positions)
    expected = _of_model(positions=positions)
    assert _rows(record) == _rows(expected)
    assert record.settings["positions"] == expected.settings["positions"]


def test_labels_are_given_beside_by_name_by_id_or_not_at_all() -> None:
    ids = torch.randperm(12, generator=torch.Generator().manual_seed(1)) + 100
    mapping = ARRAYS | BESIDE | {"sample_ids": ids, "spam": NAMES}
    expected = _rows(_of_model(NAMES))
    by_id = {int(name): str(label) for name, label in zip(ids, NAMES, strict=True)}
    for labels in (NAMES, "spam", by_id):
        record = kw.study_activations(mapping, labels=labels, layers=LAYERS, batch_size=4)
        assert _rows(record) == expected
        assert record[0].labels is not None
        assert record[0].labels.names == ("no", "yes")
    assert _rows(kw.study_activations(mapping, labels=False, layers="model.*", batch_size=4)) == _rows(
        _of_model(False)
    )


def test_labels_of_positions() -> None:
    codes = TOKENS % 3
    record = kw.study_activations(ARRAYS | {"mask": MASK, "inputs": TOKENS, "labels": codes}, batch_size=4)
    assert record.settings["task"] == "positions"
    assert _rows(record) == _rows(_of_model(codes))


def test_some_samples_are_drawn_as_of_arrays() -> None:
    data = {"input_ids": TOKENS, "attention_mask": MASK}
    expected = kw.study(llama(), data, layers=LAYERS, labels=CLASSES, max_samples=6, batch_size=4)
    record = kw.study_activations(_cut(5), max_samples=6, batch_size=4)
    assert record.settings["taken"] == expected.settings["taken"]
    assert record.samples == 6
    # The network ran on other batches here than for the files: its own rounding differs.
    _assert_close(record, expected, rel=1e-4)


def _in_line(by: str) -> dict[str, Any]:
    """Rows of existing positions in a line, and what says whose they are."""
    present = MASK.bool()
    lengths = present.sum(dim=1)
    rows: dict[str, Any] = {name: array[present] for name, array in ARRAYS.items()}
    of = {"lengths": lengths, "sample_ids": torch.arange(12).repeat_interleave(lengths)}
    return rows | {by: of[by], "labels": CLASSES, "inputs": TOKENS}


@pytest.mark.parametrize("by", ["lengths", "sample_ids"])
def test_rows_in_a_line_are_those_of_padded_samples(by: str) -> None:
    record = kw.study_activations(_in_line(by), batch_size=4)
    _assert_close(record, _of_model(), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_labels_of_rows_in_a_line(dtype: torch.dtype) -> None:
    codes = TOKENS % 3
    lines = _in_line("lengths") | {"labels": codes[MASK.bool()].to(dtype)}
    _assert_close(kw.study_activations(lines, batch_size=4), _of_model(codes), rel=1e-9)


def test_lengths_are_a_mask_of_padded_samples_and_shards_may_be_padded_differently() -> None:
    lengths = MASK.sum(dim=1)
    first = {name: array[:4, :6] for name, array in ARRAYS.items()} | {"lengths": lengths[:4]}
    rest = {name: array[4:] for name, array in ARRAYS.items()} | {"lengths": lengths[4:]}
    beside = [
        {"labels": part, "inputs": rows}
        for part, rows in zip(CLASSES.split([4, 8]), TOKENS.split([4, 8]), strict=True)
    ]
    for size in (4, 6):  # with six, a batch has samples of both
        record = kw.study_activations([first | beside[0], rest | beside[1]], batch_size=size)
        expected = kw.study_activations(ARRAYS | BESIDE, batch_size=size)
        _assert_close(record, expected, rel=1e-5)


def test_masks_of_shards_that_are_padded_differently() -> None:
    x = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(8, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[:4, 2:] = False
    parts = [{"a": x[:4, :2], "mask": mask[:4, :2]}, {"a": x[4:], "mask": mask[4:]}]
    record = kw.study_activations(parts, batch_size=8)
    _assert_close(record, kw.study_activations({"a": x, "mask": mask}, batch_size=8), rel=1e-9)
    assert record["a"].kets == int(mask.sum())


def test_a_shard_of_samples_with_one_position_each() -> None:
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    parts = [
        {"a": x[:2], "sample_ids": torch.tensor([7, 8])},
        {"a": x[2:], "sample_ids": torch.tensor([1, 1, 1, 2, 2, 3, 3])},
    ]
    for shards in (parts, parts[::-1]):
        record = kw.study_activations(shards)
        assert (record["a"].N, record["a"].kets, record["a"].info.positions) == (5, 9, True)
    with pytest.raises(ValueError, match="must be of one form"):
        kw.study_activations([{"a": x}, {"a": x[:, None]}])


def test_without_masks_positions_that_a_shorter_shard_lacks_do_not_count() -> None:
    x = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0))
    record = kw.study_activations([{"a": x[:4, :2]}, {"a": x[4:]}], batch_size=8)
    assert (record["a"].N, record["a"].kets) == (8, 4 * 2 + 4 * 5)


def test_files_of_vllm(tmp_path: Path) -> None:
    """One file a request, as `ExampleHiddenStatesConnector` writes them: all layers in one array."""
    for i in range(12):
        present = MASK[i].bool()
        states = torch.stack([array[i][present] for array in ARRAYS.values()], dim=1)
        save_file(
            {"hidden_states": states, "token_ids": TOKENS[i][present]}, tmp_path / f"cmpl-{i}-0.safetensors"
        )
        (tmp_path / f"cmpl-{i}-0.safetensors.lock").touch()
    record = kw.study_activations(tmp_path, names=LAYERS, batch_size=4, labels=CLASSES)
    for mine, other in zip(record, _of_model(), strict=True):
        assert (mine.name, mine.N, mine.kets) == (other.name, other.N, other.kets)
        assert mine.entropy.plain == pytest.approx(other.entropy.plain, rel=1e-6)
        assert mine.entanglement is not None
        assert other.entanglement is not None
        assert mine.entanglement.value == pytest.approx(other.entanglement.value, rel=1e-5)
    assert [layer.name for layer in kw.study_activations(tmp_path)] == ["hidden_states.0", "hidden_states.1"]
    with pytest.raises(ValueError, match=r"`names` must name the 2 layers of cmpl-0-0\.safetensors"):
        kw.study_activations(tmp_path, names=["one"])


def test_calls_and_kinds_and_single_vectors() -> None:
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    record = kw.study_activations({"a": x, "a (call 2)": 2 * x, "b.10": x, "b.2": x.bfloat16()})
    assert [(layer.name, layer.call) for layer in record] == [("a", 0), ("a", 1), ("b.10", 0), ("b.2", 0)]
    assert record["a", 1].norm.value == pytest.approx(2 * record["a"].norm.value)
    assert math.isnan(record["a"].estimates["entanglement"])
    chosen = kw.study_activations({"b.10": x, "b.2": x, "c": x}, layers=["c", "b.*"])
    assert [layer.name for layer in chosen] == ["c", "b.10", "b.2"]


def test_it_continues_from_a_checkpoint_and_adds_up(tmp_path: Path) -> None:
    expected = _rows(_of_model())

    def stop(samples: int) -> None:
        if samples == 8:
            raise KeyboardInterrupt

    saving = kw.Checkpoint(tmp_path / "run", every=1)
    with pytest.raises(StudyInterrupted) as ended:
        study_activations(_cut(5), batch_size=4, checkpoint=saving, progress=stop)
    assert ended.value.partial.samples == 8
    again = kw.Checkpoint(tmp_path / "run", every=1, resume=True)
    with pytest.raises(kw.CheckpointError, match="checkpoints of other data"):
        study_activations(_cut(5)[::-1], batch_size=4, checkpoint=again)
    with pytest.raises(kw.CheckpointError, match="the network's layers were others"):
        study_activations(_cut(5), layers=LAYERS[0], batch_size=4, checkpoint=again)
    assert _rows(study_activations(_cut(7), batch_size=4, checkpoint=again)) == expected
    first, second = (study_activations(part, batch_size=4) for part in _cut(4))
    total, whole = first + second, study_activations(_cut(4), batch_size=4)
    for mine, other in zip(total, whole, strict=True):
        torch.testing.assert_close(mine.density.matrix(), other.density.matrix(), rtol=0, atol=1e-12)
        assert (mine.N, mine.kets) == (other.N, other.kets)
    total.save(tmp_path / "study.safetensors")
    assert _rows(kw.Study.load(tmp_path / "study.safetensors")) == _rows(total)


def test_memory_is_flat_in_shards(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(64, 20, 8)).astype(np.float32)
    for i in range(60):
        np.savez(tmp_path / f"{i}.npz", layer=x + i)
    held: list[int] = []

    def watch(samples: int) -> None:
        held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        kw.study_activations(tmp_path, batch_size=32, progress=watch)
    finally:
        tracemalloc.stop()
    shard = x.nbytes
    assert max(held) - min(held[10:]) < 4 * shard


def _replaced(**more: Any) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = [dict(shard) for shard in _cut(5)]
    for name, value in more.items():
        shards[1][name.replace("__", ".")] = value
    return [{name: value for name, value in shard.items() if value is not None} for shard in shards]


X = ARRAYS[LAYERS[1]][5:]

BAD = {
    "no layer": (_replaced(model__layers__1=None), "mapping 1 of the list has no 'model.layers.1'"),
    "one more layer": (_replaced(more=X), "mapping 0 of the list has no 'more'"),
    "width": (_replaced(model__layers__1=X[..., :9]), "24 features in mapping 0 of the list and 9 in mapping 1"),
    "complex": (_replaced(model__layers__1=X + 0j), "must be of one form"),
    "samples": (_replaced(model__layers__1=X[:3]), "so many in mapping 1 of the list: model.layers.0 7"),
    "no labels": (_replaced(labels=None), "mapping 0 of the list has `labels` and mapping 1 of the list has none"),
    "labels": (_replaced(labels=CLASSES[:2], lengths=None), "so many"),
    "ids twice": (_in_line("lengths") | {"sample_ids": torch.zeros(12)}, "0.0 is in the mapping and again in"),
    "ids": (_in_line("lengths") | {"sample_ids": torch.arange(9)}, "9 `sample_ids` for 12 samples"),
    "scattered": ({"a": X[:, 0], "sample_ids": torch.tensor([0, 0, 1, 1, 0, 2, 2])}, "rows of sample 0 stand in"),
    "lengths": (_in_line("lengths") | {"lengths": torch.ones(12).long()}, "must have 12 samples, or 12 in a line"),
    "no length": ({"a": X[:, 0], "lengths": torch.tensor([0, 7])}, "`lengths` must be a whole number from 1 on"),
    "mask": ({"a": X, "mask": torch.ones(7)}, r"`mask` must have shape \(samples, positions\)"),
    "one axis": ({"a": X[:, 0, 0]}, "there must be a layer"),
    "lines of texts": (_in_line("lengths") | {"spam": np.array(["x"] * 80)}, "`spam` of rows in a line must be"),
    "texts": ({"a": NAMES[:, None]}, "layer 'a' must be numbers"),
    "nothing": ({"labels": CLASSES}, "there must be a layer"),
    "no sample": ({"a": X[:0]}, "at least one sample"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_together_is_refused_before_anything_is_read(what: str) -> None:
    source, words = BAD[what]
    with pytest.raises(ValueError, match=words):
        kw.study_activations(source)  # type: ignore[arg-type]


def test_arguments_that_name_nothing() -> None:
    with pytest.raises(kw.SelectorError, match=r"'layers\.1' matches none\. There are model\.layers"):
        kw.study_activations(ARRAYS, layers="layers.1")
    with pytest.raises(ValueError, match="must name a key of each batch, but is 'spam'"):
        kw.study_activations(ARRAYS, labels="spam")
    with pytest.raises(ValueError, match="the shards have no `sample_ids`"):
        kw.study_activations(ARRAYS, labels={1: 0})
    with pytest.raises(ValueError, match=r"has none for 3 \(9 of 12 are missing\)"):
        kw.study_activations(ARRAYS | {"sample_ids": torch.arange(12)}, labels={0: 0, 1: 1, 2: 1})
    with pytest.raises(ValueError, match="has 5 for 12 samples"):
        kw.study_activations(ARRAYS, labels=np.arange(5), max_samples=8)
    with pytest.raises(StudyError, match="labels"):
        kw.study_activations(ARRAYS, labels=np.arange(20) % 2, batch_size=4)
    with pytest.raises(TypeError, match="`source` must be a path"):
        kw.study_activations(torch.ones(3, 4))  # type: ignore[arg-type]


def test_values_that_are_not_finite_say_where_or_are_skipped() -> None:
    shards = _cut(5)
    shards[1][LAYERS[1]] = shards[1][LAYERS[1]].clone()
    shards[1][LAYERS[1]][3, 2, 7] = torch.nan
    words = r"'model\.layers\.1' has NaN or infinite values in sample 3 \(counted from 0\) of mapping 1 of the list"
    with pytest.raises(StudyError, match=words) as failed:
        kw.study_activations(shards, batch_size=4)
    assert failed.value.partial.samples == 8
    record = kw.study_activations(shards, batch_size=4, skip_bad=True)
    assert [(layer.N, layer.accumulator.dropped) for layer in record] == [(12, 0), (11, 1)]
    masked = [dict(shard) for shard in shards]
    masked[1]["mask"] = masked[1]["mask"].clone()
    masked[1]["mask"][3, 2] = 0
    assert kw.study_activations(masked)[1].kets == int(MASK.sum()) - 1
