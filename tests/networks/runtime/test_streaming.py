"""What goes wrong in the middle of a pass: nothing that was gathered is lost, and no half of a batch stays."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, Dataset
from typer.testing import CliRunner

import ketwork as kw
from ketwork.cli.app import app
from ketwork.cli.ground_run import ground
from ketwork.networks.activations.reading import Reading
from ketwork.networks.moments.accumulator import LayerAccumulator
from ketwork.networks.study.layer import Layer
from ketwork.records import signals as _signals
from ketwork.waves.problems import network as wave_network
from ketwork.waves.problems import problem

NETS = """
import time, torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

def batches():
    return [torch.randn(16, 4, generator=torch.Generator().manual_seed(number)) for number in range(3)]

def waits():
    yield from batches()[:2]
    open("waiting", "w").close()
    time.sleep(3600)
"""


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 4, generator=generator) for _ in range(count)]


def same(one: kw.Study, other: kw.Study) -> bool:
    return one.table().equals(other.table())


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    (tmp_path / "fault_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_nan_at_batch_900_of_1000():
    data = batches(1000)
    data[900][2, 1] = torch.nan
    with pytest.raises(kw.StudyError) as raised:
        kw.study(small(), data)
    found = raised.value.partial
    assert (found.complete, found.samples) == (False, 3600)
    assert "Layer '0' put out NaN or infinite values in batch 900, sample 3602 (" in str(found.error)
    assert same(found, kw.study(small(), data[:900]))
    whole = kw.study(small(), data, reading=Reading(skip_bad=True))
    assert (whole.complete, whole.samples, whole["0"].N, whole["0"].accumulator.dropped) == (
        True,
        4000,
        3999,
        1,
    )


class Dies(Dataset):
    """Its fortieth sample kills the process that reads it."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.randn(4, generator=torch.Generator().manual_seed(index))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
# PyTorch opens ten temporary files when a worker dies; its own signal handler may raise while one opens, and leave it.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_data_loader_worker_that_dies(tmp_path):
    with pytest.raises(kw.StudyError, match="DataLoader worker") as raised:
        kw.study(small(), DataLoader(Dies(), batch_size=8, num_workers=1))
    found = raised.value.partial
    assert not found.complete
    assert 0 < found.samples <= 40
    assert found.samples % 8 == 0
    assert "DataLoader worker" in str(found.error)
    assert {layer.N for layer in found} == {found.samples}
    whole = torch.stack(
        [torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(found.samples)]
    )
    assert same(found, kw.study(small(), whole, batch_size=8))
    found.save(tmp_path / "study")
    assert "DataLoader worker" in str(kw.Study.load(tmp_path / "study").error)


def test_a_worker_whose_death_is_told_late_takes_nothing_with_it(monkeypatch):
    """PyTorch's handler raises in whatever runs: in the middle of a batch, or when the pass is over."""
    told, before = [], signal.getsignal(signal.SIGCHLD)

    def handler(number, frame):
        told.append(number)
        raise RuntimeError("DataLoader worker is killed by signal: Killed.")

    def dying(function):
        def call(*given, **options):
            if len(told) == 0 and len(calls) in (1, 5):
                signal.raise_signal(signal.SIGCHLD)
            calls.append(None)
            return function(*given, **options)

        return call

    data = batches(4)
    for owner, name, samples in ((LayerAccumulator, "__iadd__", 8), (Layer, "from_accumulator", 16)):
        calls, told[:] = [None], []
        signal.signal(signal.SIGCHLD, handler)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, dying(getattr(owner, name)))
                try:
                    found = kw.study(small(), data)
                except kw.StudyError as error:
                    found = error.partial
        finally:
            signal.signal(signal.SIGCHLD, before)
        assert told == [signal.SIGCHLD]
        assert {layer.N for layer in found} == {samples} == {found.samples}
        assert found.complete == (samples == 16)
        assert same(found, kw.study(small(), data[: samples // 4]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_batch_enters_waits_until_it_has_entered_every_layer(number, monkeypatch):
    add, calls = LayerAccumulator.__iadd__, []

    def interrupted(self, other):
        calls.append(None)
        if len(calls) == 2:  # the first of three layers has the second batch already
            signal.raise_signal(number)
        return add(self, other)

    monkeypatch.setattr(LayerAccumulator, "__iadd__", interrupted)
    data, before = batches(4), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _signals.terminable() as heard, pytest.raises(kw.StudyInterrupted) as raised:
            kw.study(small(), data)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGTERM] * (number == signal.SIGTERM)
    monkeypatch.undo()
    found = raised.value.partial
    assert {layer.N for layer in found} == {8} == {found.samples}
    assert same(found, kw.study(small(), data[:2]))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sigterm_ends_a_command_as_ctrl_c_does(here):
    arguments = [
        "study",
        "fault_nets:small",
        "--data",
        "fault_nets:waits",
        "--out",
        "s.safetensors",
        "--json",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "ketwork", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        end = time.monotonic() + 300
        while not (here / "waiting").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 143
    assert (
        err == "ketwork: interrupted. What 32 samples before it gave is shown, and saved to s.safetensors.\n"
    )
    assert json.loads(out)["samples"] == 32
    assert kw.Study.load("s.safetensors").samples == 32


def test_a_full_disk_at_the_end_of_a_command_still_shows_the_table(here, monkeypatch):
    (here / "s.safetensors").write_text("what was there before")

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    command = [
        "study",
        "fault_nets:small",
        "--data",
        "fault_nets:batches",
        "--out",
        "s.safetensors",
        "--json",
    ]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 1
    assert json.loads(found.stdout)["samples"] == 48
    told = (
        "'s.safetensors' could not be written: No space left on device. What was there before is as it was."
    )
    assert told in " ".join(found.stderr.split())
    assert (here / "s.safetensors").read_text() == "what was there before"


@pytest.mark.parametrize("step", [-3600.0, 0.0])
def test_a_clock_that_goes_backwards_or_stands_still(step, tmp_path, monkeypatch):
    told = kw.study(small(), batches(3))
    energy = _energy()
    now = [1e9]

    def clock() -> float:
        now[0] += step
        return now[0]

    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, clock)
    found = kw.study(small(), batches(3), progress=lambda done: None)
    found.save(tmp_path / "study")
    assert same(found, told)
    assert same(kw.Study.load(tmp_path / "study"), told)
    assert _energy() == energy


def _energy() -> float:
    """That of `ketwork ground`, on a terminal, where it says how long is left."""
    ising = problem("ising", sites=4)
    console = Console(file=io.StringIO(), force_terminal=True)
    return ground(ising, wave_network("rbm", ising), steps=3, n_samples=None, console=console).energy.value
