"""Saved records that were damaged, or made to harm: each gives back what was saved, or a clear error."""

import copy
import json
import os
import random
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from packaging.version import Version
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import ketwork as kw
from ketwork import waves
from ketwork.cli.app import app
from ketwork.networks.compression import loader
from ketwork.records import files as _files
from ketwork.report import as_json, comparison_as_json, curve_as_json, detection_as_json

from .mutations import MANY, attempt, bytes_of, plain_of, tensors_of


def _network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, dtype=dtype), nn.Tanh(), nn.Linear(6, 3, dtype=dtype))


def _wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 32))


def _images():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def _study(kind: str) -> kw.Study:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 4, generator=generator)
    match kind:
        case "classes":
            return kw.study(_network(), (x, torch.arange(40) % 3), compare=True)
        case "values":
            return kw.study(_network(), (x, torch.randn(40, 2, generator=generator)))
        case "small":
            with tempfile.TemporaryDirectory() as folder:
                kw.study(_network(), (x, torch.arange(40) % 3)).save(path := f"{folder}/small", states=2)
                return kw.Study.load(path)
        case "complex":
            return kw.study(_network(torch.complex64), x.to(torch.complex64))
        case _:
            return kw.study(_images(), torch.randn(30, 1, 4, 4, generator=generator))


def _resumed(path) -> waves.Run:
    """A run that resumes from a file."""
    operator = waves.ising(waves.chain(4), 1.0)
    wave = waves.Wave(waves.RBM(), operator.space, seed=0)
    return waves.ground_state(
        operator, wave, steps=2, n_samples=None, checkpoint=waves.Checkpoint(path, resume=True)
    )


KINDS = ("classes", "values", "complex", "images")


def _detector() -> kw.Detector:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    return kw.study(_network(), (x, torch.arange(300) % 3)).detector()


@pytest.fixture(scope="module", params=[*KINDS, "small", "comparison", "curve", "detector"])
def record(request):
    """A record, what reads it, and everything that is said of it."""
    if request.param == "comparison":
        return _study("classes").compare(), kw.Comparison.load, _told
    if request.param == "curve":
        x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
        return kw.collapse_curve(_network(), x, ranks=[1, 2]), kw.CollapseCurve.load, _told
    if request.param == "detector":
        return _detector(), kw.Detector.load, _told
    return _study(request.param), kw.Study.load, _told


def _told(found) -> str:
    if isinstance(found, kw.Layer):
        return f"{found!r}{found._repr_html_()}"
    if isinstance(found, kw.Comparison):
        return f"{found!r}{found.table()}{json.dumps(comparison_as_json(found))}"
    if isinstance(found, kw.Detector):
        return f"{found!r}{found.table()}{json.dumps(detection_as_json(found))}"
    if isinstance(found, kw.CollapseCurve):
        return f"{found!r}{found.table()}{json.dumps(curve_as_json(found))}"
    return f"{found!r}{found.table()}{found.long()}{json.dumps(as_json(found))}"


def _kept(path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ketwork"])


def test_damaged_bytes_are_noticed(record, tmp_path, bounded):
    found, load, told = record
    path = tmp_path / "record"
    found.save(path)
    whole, words, draw = path.read_bytes(), told(load(path)), random.Random(0)
    refused = 0
    for _ in range(500 * MANY):
        path.write_bytes(bytes_of(whole, draw))
        with bounded():
            read, why = attempt(load, path)
            assert str(path) in why if read is None else told(read) == words
            refused += read is None
    assert refused > 450 * MANY


def test_a_record_without_its_digest_is_damaged(record, tmp_path):
    found, load, _ = record
    path = tmp_path / "record"
    found.save(path)
    tensors, header = load_file(path), _kept(path)
    del header["digest"]
    save_file(tensors, path, metadata={"ketwork": json.dumps(header)})
    with pytest.raises(ValueError, match="is damaged"):
        load(path)


@pytest.mark.parametrize("part", ["header", "tensors"])
def test_records_made_to_harm_are_refused_or_read(record, part, tmp_path, bounded):
    """As one who means harm would do it, with a digest of the new contents."""
    found, load, told = record
    path = tmp_path / "record"
    found.save(path)
    tensors, header, draw = load_file(path), _kept(path), random.Random(part)
    del header["digest"]
    if not tensors and part == "tensors":
        assert isinstance(found, kw.CollapseCurve)  # which is a header alone
        return
    told(load(path))  # which loads what is loaded once
    refused = 0
    for _ in range(150 * MANY):
        mutated = tensors if part == "header" else tensors_of(tensors, draw)
        about = plain_of(header, draw) if part == "header" else header
        _files.write_tensors(path, mutated, about, "ketwork")
        with bounded():
            read, why = attempt(load, path)
            if read is None:
                assert str(path) in why
                refused += 1
            else:
                told(read)
                read.save(path)
    assert refused > 50 * MANY


COMPLEX = (torch.complex64,) if Version(safetensors.__version__) >= Version("0.7") else ()
"""Older versions of safetensors write no complex numbers."""


@pytest.mark.parametrize("center", [False, True])
def test_numbers_of_a_sketch_in_other_dtypes_are_refused_or_computed(center, tmp_path):
    """Each tensor in each dtype: what is read has numbers, as of the populations in fewer bits."""
    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(0)) / torch.arange(1, 65)
    found, path = kw.study(nn.Identity(), x, memory=70_000, center=center), tmp_path / "record"
    found.save(path)
    tensors, header, outcomes = load_file(path), _kept(path), Counter()
    del header["digest"]
    for name, tensor in tensors.items():
        for dtype in (torch.int64, torch.float16, torch.bfloat16, torch.float32, *COMPLEX):
            _files.write_tensors(path, {**tensors, name: tensor.to(dtype)}, header, "ketwork")
            read, why = attempt(kw.Study.load, path)
            outcomes[read is None] += 1
            if read is None:
                assert str(path) in why
                continue
            again = kw.Layer.from_accumulator(read[0].accumulator, center, "state", (), None)
            assert abs(again.coherence - found[0].coherence) < 0.02, (name, dtype)
    assert min(outcomes[True], outcomes[False]) > 10


OLD = Path(__file__).parents[1] / "records" / "version_0_1"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of every kind of record, those of version 0.1 among them, and what reads them."""
    folder = tmp_path_factory.mktemp("records")
    studies = {kind: _study(kind) for kind in KINDS}
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    found = {
        **{kind: (record, kw.Study.load) for kind, record in studies.items()},
        "layer": (studies["classes"][0], kw.Layer.load),
        "comparison": (studies["classes"].compare(), kw.Comparison.load),
        "curve": (kw.collapse_curve(_network(), x, ranks=[1, 2]), kw.CollapseCurve.load),
    }
    for name, (record, _) in found.items():
        record.save(folder / name)
    old = {"comparison": kw.Comparison.load, "curve": kw.CollapseCurve.load}
    read = {folder / name: load for name, (_, load) in found.items()}
    return read | {
        OLD / f"{name}.safetensors": old.get(name, kw.Study.load)
        for name in ("study", "sketched", "complex", "comparison", "curve")
    }


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused_in_words(count, files, tmp_path, bounded):
    """Bytes, headers or tensors are changed; the latter two as one who means harm would, with a digest of the new."""
    path, outcomes = tmp_path / "record", Counter()
    parts = {}
    for source, load in files.items():
        header = _kept(source)
        header.pop("digest")
        parts[source] = load_file(source), header
        _told(load(source))  # which loads what is loaded once
    for turn in range(count * MANY):
        draw = random.Random(turn)
        source = sorted(files)[turn % len(files)]
        tensors, header = parts[source]
        how = ("bytes", "header", "tensors" if tensors else "header")[turn // len(files) % 3]
        match how:
            case "bytes":
                path.write_bytes(bytes_of(source.read_bytes(), draw))
            case "header":
                _files.write_tensors(path, tensors, plain_of(header, draw), "ketwork")
            case "tensors":
                _files.write_tensors(path, tensors_of(tensors, draw), header, "ketwork")
        with bounded():
            read, why = attempt(files[source], path)
            if read is None:
                assert str(path) in why, (turn, why)
                assert len(why) < 2000
            elif draw.random() < 300 / count:  # which takes longer than to read it
                _told(read)
        outcomes[how, read is None] += 1
    assert outcomes["bytes", True] > 0.9 * outcomes["bytes", False]
    for how in ("header", "tensors"):
        assert outcomes[how, True] > 0.3 * (outcomes[how, True] + outcomes[how, False]), outcomes


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"kind": "study", "schema": 1, "layers": ' + "[" * 900 + "]" * 900 + "}",
        '{"kind": "study", "schema": 1, "samples": NaN}',
        '{"kind": "study", "schema": 1, "samples": 1e999}',
        '{"kind": "study", "schema": 1, "samples": ' + "9" * 5000 + "}",
        '{"kind": "study", "schema": true}',
        "3",
        "",
    ],
)
def test_headers_that_are_no_header(text, tmp_path, bounded):
    path = tmp_path / "study"
    save_file({"x": torch.ones(2)}, path, metadata={"ketwork": text})
    with bounded(), pytest.raises(ValueError, match="Argument `path` must be a saved study") as raised:
        kw.Study.load(path)
    assert str(path) in str(raised.value)


def test_a_record_cannot_speak_to_the_terminal(tmp_path):
    network = _network()
    network.add_module("3\x1b]0;owned\x07", nn.ReLU())
    path = tmp_path / "study"
    kw.study(network, torch.randn(9, 4), layers="all").save(path)
    found = CliRunner().invoke(app, ["show", str(path)])
    assert found.exit_code == 0
    assert "␛]0;owned␇" in " ".join(found.stdout.split())
    assert not {"\x1b", "\x07"} & {*found.stdout}
    found = CliRunner().invoke(app, ["show", "\x1b]0;owned\x07"])
    assert found.exit_code == 2
    assert not {"\x1b", "\x07"} & {*found.stderr}


def test_what_a_damaged_file_holds_does_not_flood_or_steer_the_terminal(tmp_path):
    path = tmp_path / "study"
    text = json.dumps({"x": "\x1b]0;owned\x07" + "y" * 5000}, ensure_ascii=False).encode()
    for header in (text, text.replace(b"\\u001b", b"\x1b").replace(b"\\u0007", b"\x07")):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ValueError, match="is not a complete safetensors file") as raised:
            kw.Study.load(path)
        assert len(str(raised.value)) < 1000
        assert not {"\x1b", "\x07"} & {*str(raised.value)}


@pytest.mark.parametrize(
    "load",
    [kw.Study.load, kw.Comparison.load, kw.CollapseCurve.load, kw.Detector.load, _resumed, waves.Wave.load],
)
def test_a_pipe_for_a_record_is_refused_and_does_not_wait(load, tmp_path, bounded):
    os.mkfifo(tmp_path / "pipe")
    with bounded(), pytest.raises((ValueError, OSError), match="no file"):
        load(tmp_path / "pipe")


def test_a_checkpoint_of_a_study(tmp_path, bounded):
    """Damaged, it falls back; made to harm, with a digest, it is refused, or gives a study or an error in words."""
    x, folder = torch.randn(40, 4, generator=torch.Generator().manual_seed(1)), tmp_path / "folder"

    def run(every=100):
        options = {"compare": True, "checkpoint": kw.Checkpoint(folder, every, resume=True)}
        return kw.study(_network(), (x, torch.arange(40) % 3), layers="0", batch_size=5, **options)

    words = _told(run(every=2))
    whole = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
    before, last = sorted(whole)
    tensors, about, _ = _files.read_tensors(before, "ketwork")
    draw, outcomes = random.Random(0), Counter()
    for turn in range(150 * MANY):
        last.unlink(missing_ok=True)
        before.write_bytes(whole[before])
        match turn % 3:
            case 0:
                last.write_bytes(bytes_of(whole[last], draw))
            case 1:
                _files.write_tensors(before, tensors, plain_of(about, draw), "ketwork")
            case 2:
                _files.write_tensors(before, tensors_of(tensors, draw), about, "ketwork")
        with bounded():
            read, why = attempt(lambda _: run(), None, RuntimeError)
            assert read is not None or why
            if turn % 3 == 0:
                assert read is not None
                assert _told(replace(read, gathered=replace(read.gathered, notes=[]))) == words
            outcomes[turn % 3, read is None] += 1
        assert not list(folder.glob(".ketwork-*"))
    assert outcomes[1, True] > 25 * MANY
    assert outcomes[2, True] > 25 * MANY


@pytest.mark.parametrize("size", [10**15, 2**60, 2**64 - 1, 2**33])
def test_declared_sizes_are_not_believed(size, tmp_path, bounded):
    about = json.dumps({"ketwork": json.dumps({"kind": "study", "schema": 1})})
    shape = f'{{"x": {{"dtype": "F64", "shape": [{size}], "data_offsets": [0, {8 * size}]}}, "__metadata__": {about}}}'
    path = tmp_path / "study"
    for length, text in ((len(shape), shape), (size, shape), (size, "")):
        path.write_bytes((length % 2**64).to_bytes(8, "little") + text.encode())
        with bounded(), pytest.raises(ValueError, match="is not a complete safetensors file"):
            kw.Study.load(path)


def test_a_wide_layer_is_not_made_before_its_numbers_are_there(tmp_path, bounded):
    path = tmp_path / "study"
    _study("images").save(path)
    tensors, header = load_file(path), _kept(path)
    del header["digest"]
    header["gathered"]["layers"][0]["moment"]["d"] = 10**6  # it would take 8 TB
    _files.write_tensors(path, tensors, header, "ketwork")
    with bounded(), pytest.raises(ValueError, match="lacks a part of one"):
        kw.Study.load(path)


def test_the_checkpoint_of_a_run(tmp_path, bounded):
    operator, path = waves.ising(waves.chain(4), 1.0), tmp_path / "run"

    def run(**options):
        wave = waves.Wave(waves.RBM(), operator.space, seed=0)
        return waves.ground_state(operator, wave, steps=2, n_samples=None, **options)

    energy = run(checkpoint=path).energy
    whole, draw = path.read_bytes(), random.Random(0)
    tensors, about, _ = _files.read_tensors(path, "ketwork.waves")
    for turn in range(200 * MANY):
        if turn % 2:
            path.write_bytes(bytes_of(whole, draw))
        else:
            _files.write_tensors(path, tensors, plain_of(about, draw), "ketwork.waves")
        with bounded():
            read, why = attempt(lambda path: run(checkpoint=waves.Checkpoint(path, resume=True)), path)
            assert str(path) in why if read is None else read.energy == energy


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("generator", lambda state: state[:-1].clone(), "tensor 'generator' is no generator's state"),
        ("generator", torch.zeros_like, "tensor 'generator' is no generator's state"),
        ("chains", lambda chains: chains.flatten(), r"must have shape \(chains, 4\), but has \(128,\)"),
        ("chains", lambda chains: 7 * chains, "holds what is no configuration of the space"),
        ("chains", lambda chains: chains.double(), "must have dtype torch.float32, but has torch.float64"),
        ("chains", lambda chains: chains[1:].clone(), "has 31 chains, but this run keeps 32"),
        ("chains", lambda chains: chains[:0].clone(), "has 0 chains, but this run keeps 32"),
    ],
)
def test_a_runs_checkpoint_with_chains_or_a_generator_that_are_none(name, change, message, tmp_path):
    operator, path = waves.ising(waves.chain(4), 1.0), tmp_path / "run"

    def run(steps, **options):
        wave = waves.Wave(waves.RBM(), operator.space, seed=0)
        return waves.ground_state(operator, wave, steps=steps, n_samples=64, **options)

    run(2, checkpoint=path)
    tensors, about, _ = _files.read_tensors(path, "ketwork.waves")
    tensors[name] = change(tensors[name]).contiguous()
    _files.write_tensors(path, tensors, about, "ketwork.waves")
    with pytest.raises(ValueError, match=message):
        run(3, checkpoint=waves.Checkpoint(path, resume=True))


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """A compressed network's file, and its weights."""
    path = tmp_path_factory.mktemp("compressed") / "network"
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    small = kw.compress(_wide(), x, keep=0.9)
    small.save(path)
    with safe_open(path, framework="pt") as file:
        replaced = json.loads(file.metadata()[loader.KEY])["replaced"]
    assert replaced
    return path.read_bytes(), load_file(path), replaced


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_compressed_networks_that_were_damaged(compressed, tmp_path, bounded):
    whole, tensors, replaced = compressed
    path, draw, refused = tmp_path / "network", random.Random(0), 0
    for turn in range(300 * MANY):
        if turn % 3 == 0:
            path.write_bytes(bytes_of(whole, draw))
        else:
            told = plain_of(replaced, draw) if turn % 3 == 1 else replaced
            holds = tensors if turn % 3 == 1 else tensors_of(tensors, draw)
            signed = {"replaced": told}
            signed |= {"digest": loader.digest(holds, signed)}  # as whoever means harm would
            save_file(holds, path, metadata={loader.KEY: json.dumps(signed)})
        with bounded():
            read, why = attempt(lambda path: kw.load_compressed(str(path), _wide()), path)
        assert read is not None or str(path) in why
        refused += read is None
    assert refused > 100 * MANY


def test_one_flipped_bit_of_a_compressed_network_is_noticed(compressed, tmp_path):
    whole, _, _ = compressed
    path, draw = tmp_path / "network", random.Random(1)
    for _ in range(100 * MANY):
        place = draw.randrange(len(whole))
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :]
        )
        with pytest.raises(ValueError, match="is damaged"):
            kw.load_compressed(str(path), _wide())


def test_a_compressed_network_of_version_0_1_without_a_digest_loads(compressed, tmp_path):
    whole, tensors, replaced = compressed
    path = tmp_path / "network"
    save_file(tensors, path, metadata={"replaced": json.dumps(replaced)})
    x = torch.ones(3, 32)
    old = kw.load_compressed(str(path), _wide())(x)
    path.write_bytes(whole)
    assert torch.equal(old, kw.load_compressed(str(path), _wide())(x))


@pytest.mark.parametrize(
    "parts",
    [
        [["Transformer", {}]],
        [["Module", {}]],
        [["__class__", {}]],
        [["Linear", {"in_features": 10**9, "out_features": 10**9}]],
        [["Linear", {"in_features": 10**6, "out_features": 10**5}]],
        [["resized", {"weight": [10**6, 10**5]}, {}]],
        [["resized", {"forward": [2, 2]}, {}]],
        [["resized", {}, {"forward": 1}]],
    ],
)
def test_a_compressed_network_names_known_layers_of_its_own_size(parts, compressed, tmp_path, bounded):
    _, tensors, replaced = compressed
    path = tmp_path / "network"
    told = dict.fromkeys(replaced, parts)
    signed = {"replaced": told}
    signed |= {"digest": loader.digest(tensors, signed)}
    save_file(tensors, path, metadata={loader.KEY: json.dumps(signed)})
    with bounded(), pytest.raises(ValueError, match="must be a compressed Sequential, but"):
        kw.load_compressed(str(path), _wide())


IMPOSSIBLE = (5e-324, 1e-320, 1e308, -1.5, 0, 2**53 + 1, 2**62, 2**64 - 1)


def _numbers(value, place=()):
    """The places of all numbers in nested lists and mappings."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        if type(value[key]) in (int, float):
            yield (*place, key)
        yield from _numbers(value[key], (*place, key))


def _with(header, place, number):
    header = copy.deepcopy(header)
    holder = header
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = number
    return header


@pytest.mark.parametrize(
    ("name", "number"),
    [("classes", 5e-324), ("classes", 2**64 - 1), *(("curve", number) for number in IMPOSSIBLE)],
)
def test_impossible_numbers_in_a_record_are_refused_or_shown(name, number, files, tmp_path, bounded):
    """Each number of the header in turn, with a digest of the new: an error of 5e-324, counts of 2⁶⁴ − 1."""
    source, load = next((path, load) for path, load in files.items() if path.name == name)
    tensors, header, path = load_file(source), _kept(source), tmp_path / "record"
    del header["digest"]
    places = {
        (*("#" if type(key) is int else key for key in place[:-1]), place[-1]): place
        for place in _numbers(header)
    }
    assert len(places) > 10
    for place in places.values():
        _files.write_tensors(path, tensors, _with(header, place, number), "ketwork")
        with bounded():
            read, why = attempt(load, path)
            if read is None:
                assert str(path) in why, place
                assert len(why) < 2000
            elif {"entropy", "linear_accuracy", "dead", "original", "change"} & {*place}:
                found = CliRunner().invoke(app, ["show", str(path)])
                assert found.exit_code == 0, (place, found)


@pytest.mark.parametrize("part", ["samples", "batches", "position"])
def test_counts_of_two_to_the_64_are_refused(part, files, tmp_path):
    source = next(path for path in files if path.name == "classes")
    tensors, header, path = load_file(source), _kept(source), tmp_path / "record"
    del header["digest"]
    _files.write_tensors(path, tensors, _with(header, ("gathered", part), 2**64 - 1), "ketwork")
    with pytest.raises(
        ValueError, match=rf"lacks a part of one \(gathered\.{part}: Expected `int` <= {2**62}\)"
    ):
        kw.Study.load(path)


@pytest.mark.parametrize("state", ["short", "long", "zeros", "ones", "floats"])
def test_a_checkpoint_with_a_generator_that_is_none_is_refused(state, tmp_path):
    folder, x = tmp_path / "folder", torch.randn(40, 4, generator=torch.Generator().manual_seed(1))

    def run(every=100):
        return kw.study(_network(), x, batch_size=5, checkpoint=kw.Checkpoint(folder, every, resume=True))

    words = _told(run(every=4))
    before, last = sorted(folder.glob("*.safetensors"))
    last.unlink()
    tensors, about, _ = _files.read_tensors(before, "ketwork")
    good = tensors["state.generator"] if "state.generator" in tensors else tensors["generator"]
    name = next(name for name, tensor in tensors.items() if tensor is good)
    tensors[name] = {
        "short": good[:-1].clone(),
        "long": torch.cat([good, good]),
        "zeros": torch.zeros_like(good),
        "ones": torch.full_like(good, 255),
        "floats": good.float(),
    }[state]
    _files.write_tensors(before, tensors, about, "ketwork")
    read, why = attempt(lambda _: run(), None)
    if read is None:
        assert "Argument `checkpoint` must be a folder with a complete checkpoint, but" in why
        assert str(folder) in why
    else:
        assert state == "zeros"  # which is a state, if of another draw
        assert _told(read) == words
    assert read is None or state == "zeros"
