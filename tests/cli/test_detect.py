"""`ketwork detect`: its numbers are those of the detector, in a table, as JSON, as CSV and on a page."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.cells import cell_len

import ketwork as kw

NETS = "ketwork_cli_nets"


@pytest.fixture
def studied(here, run):
    """A study of the small network on labelled data, and two files of other data."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 800)
    known = generator.normal(size=(800, 4)).astype(np.float32) + 2 * labels[:, None]
    np.savez(here / "known.npz", x=known, y=labels)
    np.savez(here / "new.npz", x=np.r_[known[:30], generator.normal(size=(10, 4)) - 9].astype(np.float32))
    done = run("study", f"{NETS}:small", "--data", "known.npz", "--out", "study.safetensors")
    assert done.exit_code == 0, done.stderr
    return "detect", f"{NETS}:small", "--study", "study.safetensors", "--data", "new.npz"


def test_scores_are_those_of_the_detector(studied, run, here) -> None:
    done = run(
        *studied, "--json", "--out", "scores.csv", "--out", "detector.safetensors", "--out", "page.html"
    )
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    from ketwork_cli_nets import small

    detector = kw.Study.load("study.safetensors").detector()
    frame = detector.score(small(), torch.from_numpy(np.load("new.npz")["x"]), alpha=0.05, layers=True)
    assert [row["score"] for row in printed["scores"]] == pytest.approx(frame["score"].tolist(), rel=1e-4)
    assert [row["alarm"] for row in printed["scores"]] == frame["alarm"].tolist()
    assert frame["alarm"][30:].mean() >= 0.8
    written = pd.read_csv("scores.csv", index_col="sample")
    np.testing.assert_allclose(written["p_value"], frame["p_value"])
    assert written["layer"].astype(str).tolist() == frame["layer"].tolist()
    assert printed["settings"]["command"].startswith("ketwork detect ketwork_cli_nets:small --study")
    page = (here / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "have p ≤ 0.05" in page
    again = run("detect", f"{NETS}:small", "--study", "detector.safetensors", "--data", "new.npz", "--json")
    assert json.loads(again.stdout)["scores"] == printed["scores"]
    shown = run("show", "detector.safetensors", "--json")
    assert json.loads(shown.stdout)["table"] == printed["table"]
    assert run("report", "detector.safetensors").exit_code == 0


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_table_fits_and_names_the_most_unlike_samples(studied, run, width: int) -> None:
    done = run(*studied, env={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.stderr
    assert max(map(cell_len, done.stdout.splitlines())) <= width
    printed = json.loads(run(*studied, "--json").stdout)["scores"]
    best = max(printed, key=lambda row: row["score"])
    assert f"sample {best['sample']}" in done.stdout
    alarms = sum(row["alarm"] for row in printed)
    assert f"{alarms} of 40 samples" in " ".join(done.stdout.split())
    shown = run(*studied, "--out", "d.safetensors")
    assert shown.exit_code == 0
    text = run("show", "d.safetensors", env={"COLUMNS": str(width)}).stdout
    assert max(map(cell_len, text.splitlines())) <= width
    assert {"0", "1", "2"} <= {line.split()[0] for line in text.splitlines() if line.split()}


def test_method_layers_and_calibration(studied, run) -> None:
    done = run(*studied, "--method", "residual", "--layers", "2", "--calibration", "known.npz", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["settings"]["method"] == "residual"
    assert printed["settings"]["calibration"] == "given data"
    assert printed["calibration_samples"] == 800
    assert [row["layer"] for row in printed["table"]] == ["2"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("detect", f"{NETS}:small", "--data", "new.npz"), 2, "--study must be given"),
        (("detect", f"{NETS}:small", "--study", "study.safetensors"), 2, "MODEL needs --data"),
        (("detect", "--study", "study.safetensors"), 2, "MODEL and --data must be given"),
        ((f"{NETS}:small", "--alpha", "1.5"), 2, "--alpha must lie between 0 and 1"),
        ((f"{NETS}:small", "--study", "new.npz"), 2, "must be a saved study"),
        ((f"{NETS}:small", "--layers", "nine"), 2, "--layers must name layers of the study, but 'nine'"),
        ((f"{NETS}:small", "--out", "no/such/file.csv"), 2, "--out must name a file"),
        ((f"{NETS}:small", "--method", "knn"), 2, "knn"),
        ((f"{NETS}:Chatty",), 1, "must be of the architecture that was studied"),
    ],
)
def test_wrong_usage(studied, run, arguments: tuple[str, ...], code: int, message: str) -> None:
    given = arguments if arguments[0] == "detect" else (*studied, *arguments[1:])
    if arguments[0] != "detect":
        given = tuple(arguments[0] if word == studied[1] else word for word in given)
    done = run(*given)
    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_values_that_are_not_finite(studied, run, here) -> None:
    done = run("detect", *studied[1:4], "--data", f"{NETS}:bad", "--json")
    assert done.exit_code == 1
    assert "NaN or infinite values for sample 19" in done.stderr
    assert len(json.loads(done.stdout)["scores"]) == 16
    done = run("detect", *studied[1:4], "--data", f"{NETS}:bad", "--json", "--skip-bad")
    assert done.exit_code == 0, done.stderr
    assert [row["sample"] for row in json.loads(done.stdout)["scores"] if row["score"] is None] == [19]


def test_the_demonstration(run) -> None:
    done = run("detect", "--json", "--samples", 200)
    assert done.exit_code == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert len(scores) == 200
    assert {str(row["nearest_class"]) for row in scores} <= set("0123456789")


def test_the_page_has_the_command_where_it_is_wanted(studied, page_of) -> None:
    command = " ".join(["ketwork", *studied])
    assert command not in page_of(*studied)
    assert command in page_of(*studied, "--with-command")
