"""The example scripts, shortened: what they print is what they claim."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_entanglement_of_the_ising_chain_against_the_exact_one(capsys) -> None:
    worst = runpy.run_path(str(EXAMPLES / "ising_entanglement.py"))["main"](sites=8, steps=100)
    assert worst < 5e-3
    assert "exact      -10.251662 (free fermions)" in capsys.readouterr().out


def test_a_study_of_a_trained_waves_layers(capsys) -> None:
    study = runpy.run_path(str(EXAMPLES / "wave_layers.py"))["main"](sites=6, steps=40)
    table = study.table()
    assert list(table["layer"]) == ["layers.0", "layers.1", "layers.2"]
    assert (table["N"] == 2000).all()
    # The ordered phase has two kinds of configurations, up and down: the last hidden layer is near one dimension,
    # the last layer of one neuron is exactly so.
    assert table["entropy"].iloc[-1] == pytest.approx(0, abs=1e-6)
    assert "energy -" in capsys.readouterr().out
