"""Data and weights that were damaged, or made to harm: each is read, or refused in words that name the file."""

import gzip
import json
import os
import random
import socket
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from torch import nn

from ketwork.sources import SourceError, SourceFailed, load_data, load_model
from ketwork.sources.weights import load_weights

from .mutations import MANY, attempt, bytes_of

TABLE = pd.DataFrame(
    {"a": np.arange(12.0), "b": np.arange(12) % 5, "c": np.linspace(-1, 1, 12), "label": ["x", "y", "z"] * 4}
)


def _arrays(path: Path) -> None:
    x, y = np.arange(24.0, dtype=np.float32).reshape(8, 3), np.arange(8) % 2
    np.save(path, x) if path.suffix == ".npy" else np.savez_compressed(path, x=x, y=y)


def _table(path: Path) -> None:
    match path.name.split(".")[1]:
        case "csv":
            TABLE.to_csv(path, index=False)
        case "jsonl":
            TABLE.to_json(path, orient="records", lines=True)
        case _:
            TABLE.to_parquet(path)


FILES = ("t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet", "t.npy", "t.npz")


def _read(path: Path) -> list:
    return list(load_data(str(path), batch_size=5))


@pytest.mark.filterwarnings("ignore")  # NumPy and pandas warn of what they then refuse
@pytest.mark.parametrize("name", FILES)
def test_damaged_data_files(name, tmp_path, bounded):
    path = tmp_path / name
    (_arrays if ".np" in name else _table)(path)
    whole, draw = path.read_bytes(), random.Random(name)
    assert len(_read(path)) > 1
    refused = 0
    for _ in range(300 * MANY):
        path.write_bytes(bytes_of(whole, draw))
        with bounded():
            read, why = attempt(_read, path, SourceFailed)
        assert read is not None or name in why or "'label'" in why
        refused += read is None
    assert refused > 30 * MANY


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"])
def test_damaged_images(suffix, tmp_path, bounded):
    path = tmp_path / "images" / "a" / f"image.{suffix}"
    path.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole, draw = path.read_bytes(), random.Random(suffix)
    refused = 0
    for _ in range(200 * MANY):
        path.write_bytes(bytes_of(whole, draw))
        with bounded():
            read, why = attempt(
                lambda path: list(load_data(str(path.parents[1]), image_size=8)), path, SourceFailed
            )
        assert read is not None or path.name in why
        refused += read is None
    assert refused > 20 * MANY


@pytest.mark.filterwarnings("ignore")  # torch warns of the pickle protocol
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "old.pt"])
def test_damaged_weights(name, tmp_path, bounded):
    torch.manual_seed(0)
    network, path = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), tmp_path / name
    if name == "w.safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=name == "w.pt")
    whole, draw = path.read_bytes(), random.Random(name)
    refused = 0
    for _ in range(300 * MANY):
        path.write_bytes(bytes_of(whole, draw))
        with bounded():
            read, why = attempt(lambda path: load_weights(network, path) or True, path)
        assert read is not None or name in why
        refused += read is None
    assert refused > 100 * MANY


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_run(tmp_path):
    evil, proof = Touches(tmp_path / "proof"), tmp_path / "proof"
    np.save(tmp_path / "x.npy", np.array([evil], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([evil], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(SourceError, match="holds Python objects, which could run code"):
            load_data(str(tmp_path / name))
    for name, zipped in (("x.pt", True), ("x.pth", False)):
        torch.save({"weight": evil}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        with pytest.raises(SourceError, match="could run code"):
            load_weights(nn.Linear(1, 1), tmp_path / name)
    assert not proof.exists()
    torch.load(tmp_path / "x.pt", weights_only=False)["weight"].close()
    assert proof.exists()  # as they would have done


@pytest.mark.parametrize(
    "name", ["x.pkl", "x.pickle", "x.joblib", "x.yaml", "x.yml", "x.h5", "x.zip", "x.pt"]
)
def test_data_of_other_formats_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"Argument `data` must be a \.npz"):
        load_data(str(tmp_path / name))


def _folder(tmp_path: Path, **config: object) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "folder"
    settings = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(**settings, intermediate_size=8)).save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | config))
    return folder


def test_a_folder_with_code_of_its_own_is_refused(tmp_path):
    folder = _folder(
        tmp_path, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')")
    with pytest.raises(SourceError, match=r"folder does not: it comes with code of its own .* is not run"):
        load_model(str(folder))
    assert not (tmp_path / "proof").exists()


def test_a_folder_with_pickled_weights_runs_nothing(tmp_path):
    folder = _folder(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(
        {"embeddings.word_embeddings.weight": Touches(tmp_path / "proof")}, folder / "pytorch_model.bin"
    )
    with pytest.raises(
        SourceError, match="folder does not: its weights are pickled and hold more than tensors"
    ):
        load_model(str(folder))
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    "config",
    ["", "[]", "null", "{}", '{"model_type": 3}', '{"model_type": "bert", "hidden_size": "x"}', "\udcff"],
)
def test_folders_with_a_config_that_is_none(config, tmp_path):
    (tmp_path / "config.json").write_text(config, errors="surrogateescape")
    with pytest.raises(SourceError, match="Argument `model`"):
        load_model(str(tmp_path))


def _npy(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    "shape", ["(1000000000000000, 3)", "(9223372036854775807, 8)", "(100000000, 100)", "(-1, 3)"]
)
def test_declared_sizes_are_not_believed(shape, tmp_path, bounded):
    (tmp_path / "x.npy").write_bytes(_npy(shape))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", _npy(shape))
    for name in ("x.npy", "x.npz"):
        for samples in (None, 10):
            with bounded(), pytest.raises(SourceError, match="Argument `data` must name") as raised:
                load_data(str(tmp_path / name), samples=samples)
            assert name in str(raised.value)


def _bomb(path: Path, rows: int, width: int) -> None:
    """An archive of zeros, a thousandth of what it unpacks to."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape, count in (("x", f"({rows}, {width})", rows * width), ("y", f"({rows},)", rows)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                file.write(_npy(shape))
                for start in range(0, 8 * count, 1 << 20):
                    file.write(bytes(min(1 << 20, 8 * count - start)))


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_gives_few_samples(tmp_path):
    """In the memory of those samples, not of the archive (a file of 1.5 MB may unpack to 1.7 GB)."""
    path = tmp_path / "x.npz"
    _bomb(path, 1_000, 16_000)
    assert path.stat().st_size < 200_000  # for 128 MB
    tracemalloc.start()
    try:
        loaded = load_data(str(path), samples=10)
        ((x, y),) = loaded
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40_000_000  # pieces of up to 16 MB are decompressed at a time
    assert loaded.samples == 10
    assert loaded.taken == "10 of 1,000 samples, drawn at random"
    assert (tuple(x.shape), tuple(y.shape), float(x.abs().max())) == ((10, 16_000), (10,), 0)


@pytest.mark.parametrize("samples", [1, 6, 29, 30, 50])
@pytest.mark.parametrize("kind", ["classes", "numbers", "texts", "none"])
def test_the_samples_drawn_from_an_archive_are_those_drawn_from_its_arrays(samples, kind, tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(30, 2, 3)).astype(">f4")
    y = {"classes": np.arange(30) % 4, "numbers": draw.normal(size=30), "texts": np.array(list("abcdef") * 5)}
    arrays = {"x": x} | ({} if kind == "none" else {"y": y[kind]})
    np.savez_compressed(tmp_path / "c.npz", **arrays)
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez(tmp_path / "transposed.npz", **arrays | {"x": np.asfortranarray(x)})  # which is read as a whole
    whole = load_data(str(tmp_path / "transposed.npz"), samples=samples, seed=3)
    for name in ("c.npz", "plain.npz"):
        found = load_data(str(tmp_path / name), samples=samples, seed=3)
        assert (found.samples, found.taken, found.labelled) == (whole.samples, whole.taken, whole.labelled)
        assert found.label_names == whole.label_names
        assert found.description["shape"] == whole.description["shape"]
        for batch, other in zip(found, whole, strict=True):
            both = [batch, other] if kind == "none" else [*batch, *other]
            assert torch.equal(both[0], both[len(both) // 2])
            assert torch.equal(both[-1], both[len(both) // 2 - 1])


def test_an_archive_writes_nowhere(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with zipfile.ZipFile("x.npz", "w") as archive:
        archive.writestr("../../x.npy", _npy("(2, 3)") + bytes(48))
        archive.writestr("/tmp/y.npy", _npy("(2,)") + bytes(16))
    before = sorted(tmp_path.rglob("*"))
    assert len(list(load_data("x.npz", input="../../x"))) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "row", ['{"a":' + "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "[1]", '{"a": \udcff}']
)
def test_lines_that_are_no_rows(row, tmp_path, bounded):
    for name, opener in (("x.jsonl", open), ("x.jsonl.gz", gzip.open)):
        with opener(tmp_path / name, "wt", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{row}\n")
        with (
            bounded(),
            pytest.raises(SourceError, match=f"must name a complete table in UTF-8, but .*{name} is not"),
        ):
            load_data(str(tmp_path / name))


def test_an_image_with_too_many_pixels_is_an_error(tmp_path, bounded, monkeypatch):
    path = tmp_path / "a" / "bomb.png"
    path.parent.mkdir()
    Image.new("1", (1200, 1200)).save(path)
    for limit in (1_000_000, 100_000):  # Pillow warns over the limit, and refuses over twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with (
            bounded(),
            pytest.raises(SourceError, match=rf"bomb\.png is not one: it has more than {limit:,} pixels"),
        ):
            load_data(str(tmp_path), image_size=8)


def test_text_in_an_image_cannot_fill_the_memory(tmp_path, bounded):
    path, info = tmp_path / "a" / "text.png", PngImagePlugin.PngInfo()
    path.parent.mkdir()
    info.add_text("x", "a" * (4 << 20), zip=True)
    Image.new("L", (8, 8)).save(path, pnginfo=info)
    with bounded():
        read, why = attempt(lambda folder: list(load_data(str(folder))), tmp_path, SourceFailed)
    assert read is not None or "text.png" in why


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_a_pipe_or_device_among_images_is_refused_and_does_not_wait(suffix, tmp_path, bounded):
    folder = tmp_path / "a"
    (folder / f"more.{suffix}").mkdir(parents=True)  # a folder of such a name is no image
    Image.new("L", (8, 8)).save(folder / f"more.{suffix}" / "good.png")
    assert load_data(str(tmp_path)).samples == 1
    path = folder / f"pipe.{suffix}"
    os.mkfifo(path)
    for kind in (r"a named pipe \(FIFO\)", "a device"):
        with bounded(), pytest.raises(SourceError, match=rf"folder of image files, but {path} is {kind}\."):
            load_data(str(tmp_path))
        path.unlink()
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.csv", "x.parquet"])
def test_a_pipe_for_data_is_refused_and_does_not_wait(name, tmp_path, bounded):
    os.mkfifo(tmp_path / name)
    with bounded(), pytest.raises(SourceError, match=f"there is no file .*{name}"):
        load_data(str(tmp_path / name))


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
def test_a_pipe_in_a_model_folder_is_refused_and_does_not_wait(name, tmp_path, bounded):
    folder = _folder(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with bounded(), pytest.raises(SourceError, match=rf"{name} is a named pipe|has no config\.json"):
        load_model(str(folder))


def test_a_pipe_for_weights_is_refused_and_does_not_wait(tmp_path, bounded):
    os.mkfifo(tmp_path / "w.safetensors")
    with bounded(), pytest.raises(SourceError, match=r"there is no file .*w\.safetensors"):
        load_weights(nn.Linear(2, 2), tmp_path / "w.safetensors")


def test_an_image_that_is_a_program_is_not_run(tmp_path):
    path = tmp_path / "a" / "program.png"
    path.parent.mkdir()
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) (w) file\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"  # which Pillow gives to Ghostscript
    with pytest.raises(SourceError, match=r"program\.png is not one"):
        load_data(str(tmp_path))


@pytest.mark.parametrize(
    "spec", ["http://127.0.0.1:9/x.csv", "https://x.invalid/x.parquet", "s3://x/x.jsonl"]
)
def test_addresses_are_no_files_and_nothing_is_fetched(spec, monkeypatch):
    def connect(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    with pytest.raises(SourceError, match="there is no file"):
        load_data(spec)
    with pytest.raises(SourceError, match="Argument `model` must be"):
        load_model(spec)


@pytest.mark.parametrize(
    "spec", ["a" * 5000, "a" * 5000 + ".csv", "\0.csv", "\udcff.npz", "", ".", "..", os.devnull]
)
def test_names_that_no_file_has(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (load_data, load_model):
        with pytest.raises(SourceError) as raised:
            load(spec)
        assert len(str(raised.value)) < 6000
