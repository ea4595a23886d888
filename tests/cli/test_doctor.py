"""`ketwork doctor`: versions, extras, devices, and a self-test whose failure is an exit code."""

import importlib.metadata
import json

import torch

import ketwork
from ketwork.cli import doctor


def test_it_says_what_is_installed_and_that_it_works(run):
    done = run("doctor", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ketwork"] == ketwork.__version__
    assert torch.__version__.startswith(said["packages"]["torch"])  # which may name its CUDA beside it
    assert said["packages"]["pandas"] == importlib.metadata.version("pandas")
    assert None not in said["packages"].values()
    assert said["devices"][0] == "cpu"
    assert {"hf", "report", "onnx", "waves"} <= said["extras"].keys()
    assert not {"dev", "docs"} & said["extras"].keys()
    assert [test["passed"] for test in said["self-test"]] == [True, True]
    assert said["self-test"][0]["result"] == "3.000000 bits"
    shown = run("doctor").stdout
    assert f"ketwork {ketwork.__version__}" in shown
    assert shown.count("passed") == 2


def test_an_extra_that_is_missing_says_how_to_install_it(run, monkeypatch):
    before = importlib.metadata.version

    def version(name):
        if name == "altair":
            raise importlib.metadata.PackageNotFoundError(name)
        return before(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.extras()["report"]["missing"] == ["altair"]
    assert "pip install 'ketwork[report]'" in run("doctor").stdout


def test_a_self_test_that_fails_is_an_exit_code(run, monkeypatch):
    def broken():
        raise RuntimeError("no decomposition")

    monkeypatch.setattr(doctor, "_bits", broken)
    monkeypatch.setattr(doctor, "_digits", lambda: (True, "fine"))
    done = run("doctor")
    assert done.exit_code == 1
    assert "FAILED" in done.stdout
    assert "RuntimeError: no decomposition" in " ".join(done.stdout.split())
