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
    assert list(table["layer"]) == ["layers.0", "layers.1", "layers.2", "(model)"]
    assert (table["N"] == 2000).all()
    # The ordered phase has two kinds of configurations, up and down: the last hidden layer is near one dimension,
    # the last layer of one neuron is exactly so.
    assert table["entropy"].iloc[-1] == pytest.approx(0, abs=1e-6)
    assert "energy -" in capsys.readouterr().out


def test_a_point_of_the_curve_of_nitrogen(capsys) -> None:
    """A tenth of the error of Hartree–Fock after 60 steps, and never below the exact energy."""
    (off,) = runpy.run_path(str(EXAMPLES / "n2_curve.py"))["main"](lengths=(1.1,), steps=60, n_samples=200)
    line = capsys.readouterr().out.splitlines()[1]
    mean_field, exact = (float(word) for word in line.split()[1:3])
    assert exact == pytest.approx(-107.653827, abs=1e-6)
    assert 1e3 * (mean_field - exact) == pytest.approx(157.326, abs=1e-2)
    assert 0 < off < 157.326 / 10


def test_a_tower_of_states(capsys) -> None:
    """Of two by two spins, with both pairs across in their triplet: E = ½[S(S + 1) − 4]."""
    found = runpy.run_path(str(EXAMPLES / "tower_of_states.py"))["main"](
        side=2, spins=2, steps=40, n_samples=200
    )
    assert [float(level.reached) / 4 for level in found.levels] == pytest.approx([-2, -1], abs=2e-3)
    assert "S = 1  -1.00000" in capsys.readouterr().out
