"""Files of activations: which are shards, in which order, and what is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ketwork.networks.activations.naming import by_number
from ketwork.networks.activations.shard_files import shards_of


def _write(path: Path, **arrays: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: torch.as_tensor(array) for name, array in arrays.items()}, path)
    else:
        np.savez(path, **arrays)


X = np.arange(12.0).reshape(4, 3)


def test_numbers_in_names_count_by_their_value(tmp_path: Path) -> None:
    for name in ("b-2.npz", "b-10.npz", "a/b-1.safetensors"):
        _write(tmp_path / name, layer=X)
    (tmp_path / ".hidden").touch()
    (tmp_path / "b-2.npz.lock").touch()
    assert [shard.name for shard in shards_of(tmp_path)] == ["b-1.safetensors", "b-2.npz", "b-10.npz"]
    names = ["layers.10", "layers.2", "head", "layers.2.mlp"]
    assert sorted(names, key=by_number) == ["head", "layers.2", "layers.2.mlp", "layers.10"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_are_mapped_unless_they_are_compressed(save: Any, order: Any, tmp_path: Path) -> None:
    array = np.asarray(X, order=order)
    save(tmp_path / "a.npz", layer=array, labels=np.array(["x", "y", "x", "y"]), none=X[:0])
    (shard,) = shards_of(tmp_path / "a.npz")
    with shard.open() as arrays:
        assert arrays["layer"].shape == (4, 3)
        rows = arrays["layer"].read(1, 3)
        assert isinstance(rows, np.memmap) == (save is np.savez)
        np.testing.assert_array_equal(rows, X[1:3])
        assert list(arrays["labels"].all()) == ["x", "y", "x", "y"]
        assert not arrays["labels"].numeric
        assert len(arrays["none"].all()) == 0


def test_bytes_of_another_order(tmp_path: Path) -> None:
    np.save(tmp_path / "layer.npy", X.astype(">f4"))
    (shard,) = shards_of(tmp_path)
    from ketwork.networks.activations.shard_files import as_tensor

    with shard.open() as arrays:
        np.testing.assert_array_equal(as_tensor(arrays["layer"].all()).numpy(), X)


def _folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).write_bytes(b"words")
    return tmp_path


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        shards_of(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is empty"):
        shards_of(tmp_path)
    with pytest.raises(ValueError, match=r"An \.npy file holds one layer"):
        shards_of(_folder(tmp_path, "a.npy") / "a.npy")
    _write(tmp_path / "b.npz", layer=X)
    with pytest.raises(ValueError, match=r"of one kind of shards.*Put the \.npy files"):
        shards_of(tmp_path)
    with pytest.raises(ValueError, match=r"holds model\.pt, notes\.txt\. Give a safetensors"):
        shards_of(_folder(tmp_path, "model.pt", "notes.txt"))
    with pytest.raises(ValueError, match=r"but is '.*model\.pt'"):
        shards_of(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "a.npy"])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    (shard,) = shards_of(_folder(tmp_path, name))
    with pytest.raises(ValueError, match=f"{name}'.* (cannot be read|is none)"), shard.open():
        pass


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    (shard,) = shards_of(tmp_path)
    with pytest.raises(ValueError, match=r"a\.npy"), shard.open():
        pass


def test_arrays_of_vllm_have_their_shapes(tmp_path: Path) -> None:
    save_file(
        {"hidden_states": torch.ones(4, 2, 3), "token_ids": torch.arange(5)}, tmp_path / "a.safetensors"
    )
    (shard,) = shards_of(tmp_path)
    with (
        pytest.raises(ValueError, match=r"`hidden_states` has shape \(4, 2, 3\) and `token_ids` \(5,\)"),
        shard.open(),
    ):
        pass
