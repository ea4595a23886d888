"""Checkpoints of a study: resumed, it gives the very file that an uninterrupted one gives, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from typer.testing import CliRunner

import ketwork as kw
from ketwork.cli.app import app
from ketwork.networks.activations.reading import Reading
from ketwork.networks.runtime.checkpoints import SCHEMA
from ketwork.records import signals as _signals
from ketwork.records import storage
from ketwork.records.checkpoint import Checkpoint

from ...records.test_files import as_somebody, full

EVERY = 4
BATCHES = 18


class Killed(BaseException):
    """What ends everything, as SIGKILL does; the clean-up that it would not allow does nothing to checkpoints."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7, dtype=dtype), nn.Tanh(), nn.Linear(7, 3, dtype=dtype))


def images() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(BATCHES * 6, *shape, generator=seeded(1), dtype=dtype)


def classes() -> torch.Tensor:
    return torch.randint(0, 3, (BATCHES * 6,), generator=seeded(2)) + torch.arange(BATCHES * 6) // 50


def study(kind: str, **options) -> kw.Study:
    """One of the studies, of 18 batches."""
    options = {"batch_size": 6} | options
    match kind:
        case "classes, pairs":
            return kw.study(network(), (rows(5), classes()), compare=True, **options)
        case "numbers":
            return kw.study(network(), rows(5), labels=rows(2).double(), seed=seeded(7), **options)
        case "texts, masked":
            mask = torch.arange(4)[None] < 1 + torch.arange(BATCHES * 6)[:, None] % 4
            names = [f"label {code}" for code in classes().tolist()]
            return kw.study(network(), rows(4, 5), labels=names, mask=mask, normalize="ensemble", **options)
        case "positions":
            return kw.study(
                network(), (rows(4, 5), classes()[:, None].expand(-1, 4) % 3), center=True, **options
            )
        case "complex":
            x = rows(5, dtype=torch.complex64)
            return kw.study(network(torch.complex64), (x, classes()), compare=True, **options)
        case "images":
            return kw.study(images(), (rows(1, 4, 4), classes()), layers="all", **options)
        case "sketches":
            torch.manual_seed(0)
            wide = nn.Sequential(nn.Linear(5, 600), nn.ReLU(), nn.Linear(600, 300))
            x = torch.randn(BATCHES * 64, 5, generator=seeded(1))
            return kw.study(
                wide, (x, torch.arange(len(x)) % 2), memory="62MB", **options | {"batch_size": 64}
            )
    raise AssertionError(kind)


KINDS = ("classes, pairs", "numbers", "texts, masked", "positions", "complex", "images", "sketches")


def bytes_of(found: kw.Study, path: Path) -> bytes:
    found.save(path)
    return path.read_bytes()


def killing(after: int):
    """Ends the process, as far as the pass can tell, after so many more batches."""
    left = [after]

    def count(done: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return count


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def after(*batches: int) -> list[str]:
    return [f"after-{count}-batches.safetensors" for count in batches]


def crash_after(kind: str, batches: int, folder: Path, resume: bool = False, **options) -> None:
    """Leaves the checkpoints of a run that was killed after so many more batches."""
    with pytest.raises(Killed):
        study(kind, progress=killing(batches), checkpoint=Checkpoint(folder, EVERY, resume), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_study_is_the_same_file(kind, tmp_path):
    whole = study(kind)
    if kind == "sketches":
        assert "0" in whole.plan.sketched
    folder = tmp_path / "folder"
    for batches, left in ((2, ()), (6, (4,)), (3, (4,)), (11, (8, 12))):  # killed after 2, 6, 7 and 15 in all
        crash_after(kind, batches, folder, resume=True)
        assert checkpoints(folder) == sorted(after(*left))
    found = study(kind, checkpoint=Checkpoint(folder, every=EVERY, resume=True))
    assert found.complete
    assert bytes_of(found, tmp_path / "a") == bytes_of(whole, tmp_path / "b")
    assert checkpoints(folder) == after(16, 18)


def test_batches_of_the_checkpoint_are_not_run_again(tmp_path):
    calls = []

    def forward(net, batch):
        calls.append(len(batch))
        return net(batch)

    crash_after("numbers", 10, tmp_path)
    found = study("numbers", checkpoint=Checkpoint(tmp_path, every=EVERY, resume=True))
    assert found.complete
    with pytest.raises(kw.CheckpointError, match="`forward` was None and is 'a function'"):
        study("numbers", forward=forward, checkpoint=Checkpoint(tmp_path, resume=True))
    folder = tmp_path / "counted"
    crash_after("numbers", 10, folder, forward=forward)
    del calls[:]
    study("numbers", forward=forward, checkpoint=Checkpoint(folder, every=EVERY, resume=True))
    assert calls == [6] * (BATCHES - 8)
    del calls[:]
    again = study("numbers", forward=forward, checkpoint=Checkpoint(folder, every=EVERY, resume=True))
    assert calls == []  # the state at the end is kept too
    assert bytes_of(again, tmp_path / "a") == bytes_of(study("numbers"), tmp_path / "b")


SERVER = """
import json, mmap, os, random, signal, sys, time
from pathlib import Path
import torch
from torch import nn
torch.set_num_threads(1)
import ketwork as kw
from ketwork.records import Checkpoint, read_parts

folder, every, kills, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
draw, done, limit = random.Random(0), mmap.mmap(-1, 8), mmap.mmap(-1, 8)

def tell(samples):
    done[:] = (samples // 4).to_bytes(8, "little")

def told():
    return int.from_bytes(done[:], "little")

def data():
    generator = torch.Generator().manual_seed(1)
    for number in range(batches):
        while number >= int.from_bytes(limit[:], "little"):
            time.sleep(0.001)  # till it is killed, however late that is on a busy machine
        yield torch.randn(4, 6, generator=generator), torch.randint(0, 4, (4,), generator=generator)

def run(path, **options):
    child = os.fork()
    if child:
        return child
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4))
    kw.study(net, data(), compare=True, progress=tell, **options).save(path)
    os._exit(0)

limit[:] = batches.to_bytes(8, "little")
os.waitpid(run("whole"), 0)
results = []
options = dict(checkpoint=Checkpoint(folder, every=every, resume=True))
for turn in range(kills):
    base = results[-1]["saved"] if results else 0
    tell(base * 4)
    target = base + draw.randrange(0, 3 * every)
    limit[:] = (target + every).to_bytes(8, "little")  # 98 after twenty turns at most
    child = run("early", **options)
    while told() < target:
        time.sleep(0.0005)
    time.sleep(draw.random() * 0.01)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    files = [path for path in folder.iterdir() if path.name.startswith("after")] if folder.exists() else []
    saved = [read_parts(path, "checkpoint", 2)[1]["batches"] for path in files]
    torn = len(list(folder.glob(".ketwork-*"))) if folder.exists() else 0
    results.append({"done": told(), "saved": max(saved, default=0), "files": len(files), "torn": torn,
                    "killed": os.WIFSIGNALED(status)})
limit[:] = batches.to_bytes(8, "little")
status = os.waitpid(run("resumed", **options), 0)[1]
print(json.dumps({"results": results, "status": status, "left": sorted(os.listdir(folder))}))
"""


def test_sigkill_at_twenty_random_moments_loses_no_more_than_the_last_batches(tmp_path):
    every, kills, batches = 2, 20, 100
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", SERVER, "folder", str(every), str(kills), str(batches)]
    found = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=600, check=False
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    results = told["results"]
    assert len(results) == kills
    assert all(result["killed"] for result in results)
    assert all(result["done"] - result["saved"] <= every for result in results), results
    assert all(result["files"] <= 3 for result in results)
    assert sum(now["done"] > before["saved"] for before, now in pairwise(results)) > 10
    assert told["status"] == 0
    assert told["left"] == sorted(["lock", *after(98, 100)])  # and nothing half-written
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "early").exists()


def test_a_kill_at_each_step_of_writing_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """Before the sync, before the rename, before the folder's sync, before the old one is removed."""
    whole = bytes_of(study("numbers"), tmp_path / "whole")

    for step, name in enumerate(("fsync", "replace", "fsync", "unlink")):
        folder = tmp_path / str(step)
        crash_after("numbers", 9, folder)
        before = checkpoints(folder)
        with monkeypatch.context() as patch:
            known, seen = getattr(os if name != "unlink" else Path, name), []

            def dies(*given, known=known, seen=seen, step=step, **options):
                seen.append(given)
                if len(seen) == (2 if step == 2 else 1) and "lock" not in str(given):
                    raise Killed
                return known(*given, **options)

            patch.setattr(os if name != "unlink" else Path, name, dies)
            with pytest.raises(Killed):
                study("numbers", checkpoint=Checkpoint(folder, every=EVERY, resume=True))
        (folder / ".ketwork-left").write_bytes(b"half of it")
        assert {*checkpoints(folder)} >= {*before[-1:]}
        found = study("numbers", checkpoint=Checkpoint(folder, every=EVERY, resume=True))
        assert bytes_of(found, tmp_path / "resumed") == whole
        assert checkpoints(folder) == after(16, 18)


def test_a_kill_while_safetensors_writes_leaves_nothing_to_a_finished_run(tmp_path):
    """Whose own temporary file, of a name of its own, lies beside the file that it writes."""
    folder = tmp_path / "folder"
    child = os.fork()
    if not child:

        def dies(tensors, path, metadata):
            (Path(path).parent / ".tmpBPEFhG").write_bytes(bytes(10_000))
            os.kill(os.getpid(), signal.SIGKILL)

        safetensors.torch.save_file = dies
        study("numbers", checkpoint=Checkpoint(folder, every=EVERY))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (left,) = folder.glob(".*")
    assert {path.name for path in left.iterdir()} == {"file", ".tmpBPEFhG"}
    study("numbers", checkpoint=Checkpoint(folder, every=EVERY, resume=True))
    assert checkpoints(folder) == after(16, 18)


@pytest.mark.parametrize("damage", ["a bit", "the end", "all"])
def test_a_corrupt_checkpoint_falls_back_to_the_one_before(damage, tmp_path):
    whole, folder = study("classes, pairs"), tmp_path / "folder"
    crash_after("classes, pairs", 10, folder)
    assert checkpoints(folder) == after(4, 8)
    newest = folder / after(8)[0]
    data = bytearray(newest.read_bytes())
    data[-40] ^= 4
    newest.write_bytes({"a bit": data, "the end": data[:-1], "all": b""}[damage])
    found = study("classes, pairs", checkpoint=Checkpoint(folder, every=EVERY, resume=True))
    name, other = newest.name, after(4)[0]
    note = f"The checkpoint {name} is damaged, and was removed: the pass continued from {other}."
    assert found.notes == (note,)
    assert note in found.warnings
    assert found.table().equals(whole.table())
    assert found.compare().table().equals(whole.compare().table())


def test_checkpoints_that_are_all_corrupt_are_refused(tmp_path):
    crash_after("numbers", 8, tmp_path)
    for name in after(4, 8):
        (tmp_path / name).write_bytes(b"no checkpoint")
    with pytest.raises(kw.CheckpointError, match=r"after-8-.* and after-4-.* cannot be read .*Remove them"):
        study("numbers", checkpoint=Checkpoint(tmp_path, resume=True))
    assert checkpoints(tmp_path) == after(4, 8)


def _other_weights() -> nn.Module:
    other = network()
    with torch.no_grad():
        other[2].bias[1] += 1e-6
    return other


OTHERS = {
    "network": (
        lambda: (images(), rows(1, 4, 4), {}),
        "the network's shapes were others; the network's weights were others; `layers` was",
    ),
    "weights": (lambda: (_other_weights(), rows(5), {}), "another run: the network's weights were others"),
    "settings": (
        lambda: (network(), rows(5), {"normalize": "ensemble", "reading": Reading(skip_bad=True)}),
        "`normalize` was 'state' and is 'ensemble'; `skip_bad` was False and is True",
    ),
    "seed": (lambda: (network(), rows(5), {"seed": 3}), "`seed` was 0 and is 3"),
    "layers": (lambda: (network(), rows(5), {"layers": ["0"]}), r"`layers` was .* and is \['0'\]"),
    "order": (lambda: (network(), rows(5).flip(0), {}), "checkpoints of other data: the first 8 batches"),
    "one number": (
        lambda: (network(), rows(5).index_put((torch.tensor(20), torch.tensor(3)), torch.tensor(9.0)), {}),
        "checkpoints of other data",
    ),
    "labels": (
        lambda: (network(), rows(5), {"labels": classes().flip(0)}),
        "checkpoints of other data",
    ),
    "length": (lambda: (network(), rows(5)[:20], {}), "after 8 batches, but the data end after 4"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(other, tmp_path):
    labelled = {"labels": classes()} if other == "labels" else {}
    saving = Checkpoint(tmp_path, every=EVERY)
    with pytest.raises(Killed):
        kw.study(network(), rows(5), progress=killing(8), batch_size=6, checkpoint=saving, **labelled)
    before = {name: (tmp_path / name).read_bytes() for name in checkpoints(tmp_path)}
    model, data, changed = OTHERS[other][0]()
    with pytest.raises(kw.CheckpointError, match=OTHERS[other][1]) as raised:
        kw.study(model, data, batch_size=6, checkpoint=replace(saving, resume=True), **changed)
    assert str(tmp_path) in str(raised.value)
    assert before == {name: (tmp_path / name).read_bytes() for name in checkpoints(tmp_path)}


def test_checkpoints_are_not_written_over_unasked(tmp_path):
    crash_after("numbers", 8, tmp_path)
    with pytest.raises(
        kw.CheckpointError, match=r"without checkpoints, but .*has some\. Continue .*resume=True"
    ):
        study("numbers", checkpoint=tmp_path)
    assert checkpoints(tmp_path) == after(4, 8)
    with pytest.raises(ValueError, match="Argument `every` must be at least 1, but is 0"):
        study("numbers", checkpoint=Checkpoint(tmp_path, every=0))


def test_a_second_run_on_a_folder_is_refused_until_the_first_one_ends(tmp_path):
    refused = []

    def second(done: int) -> None:
        with pytest.raises(kw.CheckpointError, match="another one writes to") as raised:
            study("numbers", checkpoint=Checkpoint(tmp_path, resume=True))
        refused.append(str(raised.value))

    record = study("numbers", progress=second, checkpoint=Checkpoint(tmp_path, every=EVERY))
    assert len(refused) == BATCHES + len(record)  # each layer is reported at the end
    assert str(tmp_path) in refused[0]
    assert study("numbers", checkpoint=Checkpoint(tmp_path, resume=True)).complete


def test_a_full_disk_does_not_end_the_pass(tmp_path, monkeypatch):
    whole = study("numbers")
    crash_after("numbers", 8, tmp_path)
    note = (
        f"{str(tmp_path / after(12)[0])!r} could not be written: No space left on device. What was there before is as "
        "it was. The pass continued, and could be resumed after 8 batches."
    )
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as warned:
        found = study("numbers", checkpoint=Checkpoint(tmp_path, every=EVERY, resume=True))
    assert str(warned[0].message) == note
    assert found.complete
    assert found.notes[0] == note
    assert found.table().equals(whole.table())
    assert checkpoints(tmp_path) == after(4, 8)
    monkeypatch.undo()
    again = study("numbers", checkpoint=Checkpoint(tmp_path, every=EVERY, resume=True))
    assert again.table().equals(whole.table())


def test_a_read_only_folder_is_refused_before_the_pass(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    with as_somebody(tmp_path), pytest.raises(PermissionError, match="folder"):
        study("numbers", checkpoint=folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_checkpoint_of_all_that_was_done(number, tmp_path):
    whole, before = study("classes, pairs"), signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def interrupt(samples: int) -> None:
        done.append(samples)
        if len(done) == 6:
            signal.raise_signal(number)

    try:
        with _signals.terminable(), pytest.raises(kw.StudyInterrupted) as raised:
            study("classes, pairs", progress=interrupt, checkpoint=Checkpoint(tmp_path, every=EVERY))
    finally:
        signal.signal(signal.SIGINT, before)
    assert raised.value.partial.samples == 36
    assert checkpoints(tmp_path) == after(4, 6)
    found = study("classes, pairs", checkpoint=Checkpoint(tmp_path, every=EVERY, resume=True))
    assert bytes_of(found, tmp_path / "a") == bytes_of(whole, tmp_path / "b")


def test_nan_at_batch_900_of_1000_is_mended_and_resumed(tmp_path):
    good = list(torch.randn(4000, 5, generator=seeded(1)).split(4))
    bad = [*good[:900], good[900] / 0, *good[901:]]
    with pytest.raises(kw.StudyError) as raised:
        kw.study(network(), bad, layers="2", checkpoint=tmp_path)
    found = raised.value.partial
    assert not found.complete
    assert "in batch 900" in str(found.error)
    assert checkpoints(tmp_path) == after(800, 900)
    ran = []
    found = kw.study(
        network(), good, layers="2", progress=ran.append, checkpoint=Checkpoint(tmp_path, resume=True)
    )
    assert ran[0] == 3604
    assert bytes_of(found, tmp_path / "a") == bytes_of(kw.study(network(), good, layers="2"), tmp_path / "b")


class Dies(Dataset):
    """Its fortieth sample kills the process that reads it, unless it is mended."""

    mended = False

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 40 and not self.mended:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.randn(5, generator=seeded(index))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # PyTorch's, see test_streaming.py
def test_a_data_loader_worker_that_dies_is_mended_and_resumed(tmp_path):
    data = Dies()
    dying = DataLoader(data, batch_size=8, num_workers=1)
    with pytest.raises(kw.StudyError) as raised:
        kw.study(network(), dying, checkpoint=Checkpoint(tmp_path, every=2))
    found = raised.value.partial
    assert "DataLoader worker" in str(found.error)
    assert checkpoints(tmp_path)[-1:] == after(found.samples // 8)
    data.mended = True
    loader = DataLoader(data, batch_size=8)
    found = kw.study(network(), loader, checkpoint=Checkpoint(tmp_path, every=2, resume=True))
    assert bytes_of(found, tmp_path / "a") == bytes_of(kw.study(network(), loader), tmp_path / "b")


def test_a_clock_that_went_backwards_does_not_hide_the_newest_checkpoint(tmp_path, monkeypatch):
    now = [1e9]

    def clock() -> float:
        now[0] -= 3600
        return now[0]

    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, clock)
    crash_after("numbers", 10, tmp_path)
    for turn, name in enumerate(reversed(after(4, 8))):
        os.utime(tmp_path / name, (1e9 + turn, 1e9 + turn))
    ran = []
    found = study("numbers", progress=ran.append, checkpoint=Checkpoint(tmp_path, every=EVERY, resume=True))
    assert ran[0] == 9 * 6
    assert bytes_of(found, tmp_path / "a") == bytes_of(study("numbers"), tmp_path / "b")


def test_the_command_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "resumed_nets.py").write_text(
        "import torch\nfrom pathlib import Path\n\n"
        "def small():\n    torch.manual_seed(0)\n    return torch.nn.Linear(5, 3)\n\n"
        "def batches():\n    for n in range(9):\n        x = torch.full((4, 5), n + 1.0)\n"
        "        x[0, n % 5] = float('nan') if n == 7 and not Path('mended').read_text() else 2\n        yield x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mended").write_text("")
    command = ["study", "resumed_nets:small", "--data", "resumed_nets:batches", "--json"]
    options = ["--checkpoint", "folder", "--every", "2", "--resume"]
    found = CliRunner().invoke(app, [*command, *options])
    assert found.exit_code == 1
    assert "With --resume the same command continues from there." in " ".join(found.stderr.split())
    assert checkpoints(tmp_path / "folder") == after(6, 7)
    (tmp_path / "mended").write_text("yes")
    refused = CliRunner().invoke(app, [*command, *options[:-1]])
    assert refused.exit_code == 2
    assert "has some. Continue with them by `Checkpoint(..., resume=True)` (--resume)" in " ".join(
        refused.stderr.split()
    )
    found, whole = CliRunner().invoke(app, [*command, *options]), CliRunner().invoke(app, command)
    assert (found.exit_code, whole.exit_code) == (0, 0)
    assert json.loads(found.stdout)["table"] == json.loads(whole.stdout)["table"]
    alone = CliRunner().invoke(app, [*command, "--resume"])
    assert alone.exit_code == 2
    assert "--resume needs the folder to continue from. Give --checkpoint FOLDER." in " ".join(
        alone.stderr.split()
    )


def test_tensors_of_a_checkpoint_are_what_the_pass_has(tmp_path):
    """What a file holds, for those who read it elsewhere: plain values, and tensors by row."""
    crash_after("classes, pairs", 8, tmp_path)
    tensors, header = storage.read_parts(tmp_path / after(8)[0], "checkpoint", SCHEMA)
    assert header["batches"] == 8
    gathered = header["state"]["gathered"]
    assert (gathered["batches"], gathered["samples"], len(gathered["layers"])) == (8, 48, 3)
    assert gathered["labels"]["names"] == list(dict.fromkeys(classes()[:48].tolist()))
    total = tensors[gathered["layers"][2]["moment"]["first"]]
    out = network()(rows(5)[:48]).detach()
    torch.testing.assert_close(total, (out / out.norm(dim=1, keepdim=True)).double().sum(dim=0))
