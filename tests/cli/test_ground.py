"""`ketwork ground`: energies against exact ones, files that go on, and bad input."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ketwork.waves.exact import ising_chain_energy

SMALL = ("ground", "ising", "--sites", 8, "--steps", 60, "--samples", 256)


def test_the_energy_beside_the_exact_one(run) -> None:
    result = run(*SMALL)
    assert result.exit_code == 0
    energy = float(re.search(r"E = (-[\d.]+) ±", result.stdout)[1])
    exact = float(re.search(r"exact (-[\d.]+)", result.stdout)[1])
    assert exact == pytest.approx(ising_chain_energy(8), abs=1e-5)
    assert energy == pytest.approx(exact, rel=2e-3)


def test_json_has_the_numbers_and_nothing_else(run) -> None:
    result = run("ground", "ising", "--sites", 6, "--steps", 40, "--samples", 0, "--json")
    found = json.loads(result.stdout)
    assert found["exact"] == pytest.approx(ising_chain_energy(6), abs=1e-9)
    assert found["energy"]["mean"] == pytest.approx(found["exact"], rel=1e-3)
    assert found["energy"]["mean"] >= found["exact"] - 1e-6  # a full sum is never below the ground state
    assert len(found["steps"]) == 40


def test_a_saved_run_is_read_to_the_same_numbers(run, tmp_path: Path) -> None:
    saved, plot = tmp_path / "run.safetensors", tmp_path / "run.svg"
    whole = json.loads(run(*SMALL, "--out", saved, "--json").stdout)
    again = run(*SMALL, "--resume", saved, "--out", plot, "--json")
    assert json.loads(again.stdout) == whole
    assert plot.read_text().lstrip().startswith(("<?xml", "<svg"))


def test_a_factory_of_ones_own(run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ketwork import waves\n"
        "def build():\n"
        "    return waves.heisenberg(waves.chain(6), magnetization=0)\n"
    )
    result = run("ground", f"{tmp_path / 'mine.py'}:build", "--steps", 80, "--samples", 0, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["exact"] == pytest.approx(
        -4 * (1 + math.sqrt(13) / 2), abs=1e-6
    )  # ring of six, Pauli convention
    assert found["energy"]["mean"] == pytest.approx(found["exact"], rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["isnig"], "ising, heisenberg, j1j2, molecule"),
        (["ising", "--lattice", "hexagon"], "chain, square"),
        (["ising", "--model", "mlp"], "rbm, symmetric"),
        (["ising", "--resume", "nothing.safetensors"], "nothing.safetensors"),
        (["ising", "--out", "no/such/folder/run.safetensors"], "--out must name a file"),
        (["ising", "--out", "run.txt"], "svg"),
        (["math:pi"], "float"),
    ],
)
def test_wrong_usage(run, arguments: list[str], message: str) -> None:
    result = run("ground", *arguments, "--steps", 2)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_interrupted_run_is_kept(tmp_path: Path, run) -> None:
    saved = tmp_path / "run.safetensors"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ketwork",
            "ground",
            "ising",
            "--sites",
            "12",
            "--steps",
            "100000",
            "--out",
            saved,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 300
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    result = run("ground", "ising", "--sites", 12, "--steps", 1, "--resume", saved, "--json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["steps"]) >= 50
