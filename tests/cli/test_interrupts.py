"""Ctrl-C and SIGTERM are honoured at the end of a command too, and small files are what they were stopped to be."""

import functools
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

import ketwork as kw
from ketwork.cli import console as kw_console
from ketwork.cli import writing
from ketwork.networks.measures.overlaps import OverlapsOfRows
from ketwork.networks.runtime import Stage
from ketwork.networks.study import small
from ketwork.networks.study.layer import Layer

NETS = "ketwork_cli_nets"
SMALL = (f"{NETS}:small", "--data", f"{NETS}:batches")

WIDE = """
import torch
from torch import nn

class Wide(nn.Module):  # a plain linear layer would be kept in the 21 dimensions of its inputs
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3200, 20))
    def forward(self, x):
        return nn.functional.linear(x, self.weight).tanh()

def wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 20), Wide())

def batches():
    for number in range(4):
        yield torch.randn(450, 8, generator=torch.Generator().manual_seed(number))
    open("ended", "w").close()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_one_long_decomposition_ends_the_command_and_loses_nothing(
    number: signal.Signals, here: Path
) -> None:
    """LAPACK takes 3,200 dimensions in one call of many seconds, which no signal breaks."""
    (here / "wide_nets.py").write_text(WIDE)
    paths = os.pathsep.join([str(here), *filter(None, sys.path)])
    arguments = [
        "study",
        "wide_nets:wide",
        "--data",
        "wide_nets:batches",
        "--out",
        "s.safetensors",
        "--out",
        "p.html",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "ketwork", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    try:
        end = time.monotonic() + 300
        while not (here / "ended").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(2)  # the narrow layer is done by then
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert err == (
        "ketwork: interrupted. What 1800 samples before it gave is shown, and saved to s.safetensors. The numbers of "
        "1 of 2 layers had not been computed: `ketwork show s.safetensors` does. The page was not "
        "written: `ketwork report s.safetensors --out p.html` does.\n"
    )
    assert not (here / "p.html").exists()
    saved = kw.Study.load("s.safetensors")
    assert [layer.finished for layer in saved] == [True, False]
    assert (saved.complete, saved.samples, saved.pairs is not None) == (True, 1800, True)
    x = torch.cat([torch.randn(450, 8, generator=torch.Generator().manual_seed(n)) for n in range(4)])
    torch.manual_seed(0)
    narrow = torch.nn.Linear(8, 20)
    expected = kw.study(narrow, x, batch_size=450)[0].entropy
    rows = json.loads(out)["table"]
    assert [row["entropy"] for row in rows] == [pytest.approx(expected, rel=1e-9), None]
    # What is missing follows from the moment, which is that of all data.
    net = runpy.run_path(str(here / "wide_nets.py"))["wide"]()
    with torch.no_grad():
        kets = torch.nn.functional.normalize(net(x), dim=1).double()
    moment = saved[1].accumulator.moment
    assert (moment.n, moment.weight) == (1800, 1800.0)
    torch.testing.assert_close(moment.diagonal(), kets.square().sum(dim=0), rtol=1e-5, atol=1e-9)


def _interrupting(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int, at: int = 1
) -> None:
    original, calls = getattr(owner, name), []

    def call(*given, **options):
        calls.append(None)
        if len(calls) == at:
            signal.raise_signal(number)
            time.sleep(0.2)  # until the main thread has heard it
        return original(*given, **options)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_numbers_that_an_interrupted_command_missing_pairs_are_computed_when_it_is_shown(
    here, run, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    whole = json.loads(run("study", *SMALL, "--json").stdout)
    with monkeypatch.context() as patch:
        _interrupting(patch, Layer, "from_accumulator", number, at=2)
        done = run("study", *SMALL, "--out", "s.safetensors", "--states", "2")
    assert done.exit_code == code
    assert "The numbers of" in done.stderr
    assert "of 3 layers had not been computed: `ketwork show s.safetensors` does." in done.stderr
    assert "–" in done.stdout
    assert not kw.Study.load("s.safetensors").finished
    shown = run("show", "s.safetensors", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["table"] == whole["table"]
    assert json.loads(shown.stdout)["warnings"] == whole["warnings"]


def test_a_signal_while_a_study_is_saved_waits_until_it_is(
    here, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _interrupting(patch, kw.Study, "save", signal.SIGINT)
        done = run("study", *SMALL, "--out", "s.safetensors", "--out", "p.html")
    assert done.exit_code == 130
    assert (
        "What 48 samples before it gave is shown, and saved to s.safetensors. The page was not written"
        in done.stderr
    )
    assert kw.Study.load("s.safetensors").finished
    assert "entropy" in done.stdout
    assert not (here / "p.html").exists()


def test_a_signal_while_the_page_is_written_leaves_the_study(
    here, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _interrupting(patch, kw.Study, "report", signal.SIGTERM)
        done = run("study", *SMALL, "--out", "s.safetensors", "--out", "p.html")
    assert done.exit_code == 143
    assert (
        "saved to s.safetensors. The page was not written: `ketwork report s.safetensors --out p.html` does."
        in done.stderr
    )
    assert kw.Study.load("s.safetensors").finished


def test_a_comparison_that_is_interrupted_at_its_end_is_shown_and_saved(
    here, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _interrupting(patch, OverlapsOfRows, "block", signal.SIGINT, at=3)
        done = run("compare", *SMALL, "--out", "c.safetensors")
    assert done.exit_code == 130
    assert "What 48 samples before it gave is shown, and saved to c.safetensors." in done.stderr
    assert kw.Comparison.load("c.safetensors").n == 48


def test_states_says_what_a_file_keeps(here, run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("study", *SMALL, "--out", "two.safetensors", "--states", "2")
    assert (
        done.stderr
        == "Saved with the 2 leading states of each layer (--states full: all) to two.safetensors\n"
    )
    assert (
        run("study", *SMALL, "--out", "all.safetensors", "--states", "full").stderr
        == "Saved to all.safetensors\n"
    )
    two, everything = kw.Study.load("two.safetensors"), kw.Study.load("all.safetensors")
    assert (two.states, everything.states) == (2, None)
    assert run("show", "two.safetensors").stdout == run("show", "all.safetensors").stdout
    monkeypatch.setattr(small, "MOST_BYTES", 1000)
    done = run("study", *SMALL, "--out", "large.safetensors")
    assert (
        done.stderr
        == "Saved with the 64 leading states of each layer (--states full: all) to large.safetensors\n"
    )
    for given in ("0", "-3", "most", "2.5"):
        refused = run("study", *SMALL, "--out", "no.safetensors", "--states", given)
        assert refused.exit_code == 2
        assert (
            f"--states must be a number of leading states ≥ 1, or full, but was '{given}'" in refused.stderr
        )
    refused = run("detect", f"{NETS}:small", "--data", f"{NETS}:batches", "--study", "two.safetensors")
    assert refused.exit_code != 0
    assert "a detector needs all of what was gathered. Save the study with" in refused.stderr


def test_a_page_alone_compares_as_many_pairs_as_its_time_gives(here, run) -> None:
    run("study", *SMALL, "--out", "s.safetensors", "--out", "p.html")
    saved = kw.Study.load("s.safetensors")
    assert saved.settings["pairs_seconds"] == 30.0
    assert saved.compare().missing_pairs is None
    assert saved.pairs is None
    run("study", *SMALL, "--out", "s.safetensors", "--out", "p.html", "--compare")
    assert kw.Study.load("s.safetensors").settings["pairs_seconds"] is None
    run("study", *SMALL, "--out", "s.safetensors")
    assert kw.Study.load("s.safetensors").comparison is None


def test_the_page_of_pairs_that_were_missing_pairs_is_a_page(here, run) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(5)])
    study = kw.study(net, torch.randn(50, 4), compare=0.0)
    study.save("s.safetensors")
    assert run("report", "s.safetensors", "-o", "p.html").exit_code == 0
    text = (here / "p.html").read_text()
    matrices, _ = json.JSONDecoder().raw_decode(text.partition('"matrices":')[2])
    bures = matrices["values"]["bures"]
    assert [[value is None for value in row] for row in bures] == [
        [abs(i - j) > 1 for j in range(5)] for i in range(5)
    ]
    assert "4 of 10 pairs of layers were compared" in text


def test_a_terminal_sees_how_far_the_end_is_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console = functools.partial(Console, file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(kw_console, "Console", lambda **options: console())
    with kw_console.progress_bar(300) as bars:
        assert bars is not None
        bars(300)
        bars.stage(Stage("layers", 2, 8, 0.5))
        bars.stage(Stage("pairs", 1, 28, 1 / 28))
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue()).splitlines()
    assert any(re.search(r"samples\s.*300/300", line) for line in lines)
    assert any(re.search(r"layers\s.*2/8", line) for line in lines)
    assert any(re.search(r"pairs\s.*1/28.*(-:--:--|\d:\d\d:\d\d)", line) for line in lines)


def test_nothing_is_left_to_do_of_a_finished_study() -> None:
    study = kw.study(torch.nn.Linear(3, 2), torch.randn(20, 3))
    assert writing.left_to_do(study, None, None) == ""
