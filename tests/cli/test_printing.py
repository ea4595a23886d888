"""What is printed: chosen and sorted columns, CSV, nothing with --quiet, a glossary with --explain, lines in logs."""

import io
import json
import time

import pandas as pd
import pytest

import ketwork as kw
from ketwork.cli import console
from ketwork.demo import digits
from ketwork.networks.runtime import Stage

NETS = "ketwork_cli_nets"
SMALL = (f"{NETS}:small", "--data", f"{NETS}:batches")


def test_csv_is_the_table(here, run):
    done = run("study", *SMALL, "--csv", "--out", "t.csv", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    expected = json.loads(run("study", *SMALL, "--json").stdout)["table"]
    printed = pd.read_csv(io.StringIO(done.stdout), dtype={"layer": str})
    assert printed["layer"].tolist() == [row["layer"] for row in expected]
    assert printed["entropy"].tolist() == pytest.approx([row["entropy"] for row in expected], rel=1e-12)
    assert (here / "t.csv").read_text() == done.stdout


def test_columns_and_their_order(here, run):
    assert run("study", *SMALL, "--out", "s.safetensors").exit_code == 0
    done = run("show", "s.safetensors", "--columns", "layer,entropy", "--sort", "-entropy", "--csv")
    table = pd.read_csv(io.StringIO(done.stdout), dtype={"layer": str})
    assert [*table.columns] == ["layer", "entropy"]
    assert table["entropy"].is_monotonic_decreasing
    up = run("show", "s.safetensors", "--columns", "layer,entropy", "--sort", "entropy")
    lines = up.stdout.splitlines()
    assert lines[0].split() == ["layer", "entropy"]
    assert [line.split()[0] for line in lines[2:]] == table["layer"].tolist()[::-1]
    assert lines[2].split()[1] == f"{table['entropy'].iloc[-1]:.4g}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--columns", "layer,entropie"), "--columns must name columns of the table (layer, "),
        (("--sort", "nothing"), "but there is no 'nothing'"),
        (("--json", "--csv"), "--json prints everything"),
    ],
)
def test_columns_that_are_none(here, run, options, words):
    done = run("study", *SMALL, *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_quiet_leaves_errors_alone(here, run):
    done = run("study", *SMALL, "--quiet", "--out", "s.safetensors")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    assert kw.Study.load("s.safetensors").samples == 48
    done = run("study", *SMALL, "-q", "--memory", "x")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("ketwork: --memory must")


def test_the_glossary_is_for_those_who_want_it(here, run):
    meaning = " ".join(kw.study(digits.model(), digits.held_out()[:1]).definitions["entropy"].split()[:4])
    plain, explained = (" ".join(run("study", *SMALL, *more).stdout.split()) for more in ((), ("--explain",)))
    assert meaning not in plain
    assert "--explain says what each number means." in plain
    assert meaning in explained


def test_logs_have_a_line_at_times(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = console.Lines(200)
    for done, seconds in ((10, 110), (60, 131), (100, 140), (150, 175)):
        now[0] = float(seconds)
        lines(done)
    lines.stage(Stage("layers", 3, 4, 0.75))
    now[0] = 205.0
    lines.stage(Stage("layers", 4, 4, 0.9))
    assert capsys.readouterr().err.splitlines() == [
        "ketwork: samples 60/200 after 0:31, about 1:12 left",
        "ketwork: samples 150/200 after 1:15, about 0:25 left",
        "ketwork: layers 4/4 after 0:30, about 0:03 left",
    ]


def test_a_command_without_a_terminal_says_how_far_it_is(here, run, monkeypatch):
    monkeypatch.setattr(console, "PAUSE", 0.0)
    said = run("study", *SMALL).stderr.splitlines()
    assert "samples 48/?" in " ".join(said)
    assert all(line.startswith("ketwork: ") for line in said)
    assert run("study", *SMALL, "--quiet").stderr == ""
