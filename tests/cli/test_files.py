"""`--out`: files by their endings; refused options; completion; records of every kind, shown again."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import ketwork as kw
from ketwork import waves
from ketwork.demo import digits

NETS = "ketwork_cli_nets"
SMALL = (f"{NETS}:small", "--data", f"{NETS}:batches")
DEMO = ("ketwork.demo.digits:model", "--data", "ketwork.demo.digits:held_out")


def test_each_ending_is_a_form(here, run):
    names = ["s.safetensors", "s.html", "s.csv", "s.json", "s.png"]
    done = run("study", *SMALL, "--json", *(part for name in names for part in ("--out", name)))
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines() == [
        "Saved to s.safetensors",
        "Report written to s.html",
        "Table written to s.csv",
        "Numbers written to s.json",
        "Drawn to s.png",
    ]
    study = kw.Study.load("s.safetensors")
    assert (here / "s.json").read_text() == done.stdout
    assert pd.read_csv("s.csv")["entropy"].tolist() == pytest.approx(
        study.table()["entropy"].tolist(), rel=1e-12
    )
    assert (here / "s.png").read_bytes().startswith(b"\x89PNG")
    assert (here / "s.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("command", "old", "kind"),
    [
        (("study", *SMALL), ("--save", "x.anything"), "Saved to x.anything"),
        (("study", *SMALL), ("--report", "x.page"), "Report written to x.page"),
        (("compare", *SMALL), ("--save", "x.st"), "Saved to x.st"),
        (("collapse", *SMALL, "--ranks", "1"), ("--plot", "x.svg"), "Drawn to x.svg"),
        (("report", "s.safetensors"), ("--output", "x"), "Report written to x"),
    ],
)
def test_old_names_work_with_a_note(here, run, command, old, kind):
    assert run("study", *SMALL, "--out", "s.safetensors").exit_code == 0
    done = run(*command, *old)
    assert done.exit_code == 0, done.stderr
    name, path = old
    assert done.stderr.splitlines() == [
        f"{name} is now --out, which goes by the file's ending: --out {path}",
        kind,
    ]
    assert (here / path).exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("study", *SMALL, "--out", "x.txt"), "--out must end in one of .safetensors (record), .html (page)"),
        (("study", *SMALL, "--out", "x.onnx"), "--out must end in one of"),
        (
            ("study", *SMALL, "--out", "x.svg", "--out", "y.png"),
            "--out names two files of one kind (plot): x.svg and y.png",
        ),
        (
            ("study", *SMALL, "--out", "none/x.html"),
            "--out must name a file in a folder that can be written to",
        ),
        (("study", *SMALL, "--memory", "1KB"), "--memory"),
        (("study", *SMALL, "--memory", "much"), "--memory must be"),
        (("study", *SMALL, "--positions", "prompt"), "--positions"),
        (("compress", "--keep", "5"), "Invalid value for '--keep'"),
        (("compress", "--keep", "0"), "--keep must be a share above 0 and up to 1, but is 0.0"),
        (("compress", "--max-kl", "-1"), "'--max-kl'"),
        (("compare", *SMALL, "--samples", "2"), "--samples must be at least 4, but is 2"),
    ],
)
def test_options_that_cannot_be_are_named_and_exit_with_2(here, run, arguments, words):
    done = run(*arguments)
    assert done.exit_code == 2, (done.stdout, done.stderr)
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert done.stdout == ""


def test_errors_of_data_are_no_usage(here, run):
    torch.save({}, "x.pt")
    np.save("x.npy", np.zeros((2, 4), dtype="float32"))
    done = run("compare", f"{NETS}:small", "--data", "x.npy")
    assert (done.exit_code, "at least 4 samples" in done.stderr) == (1, True)


def test_the_shell_completes_commands_and_options(tmp_path):
    def completed(words):
        environment = {
            "_KETWORK_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        code = "import sys; from ketwork.cli import main; sys.argv[0] = 'ketwork'; main()"
        import os

        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.split()

    assert completed("ketwork col") == ["collapse"]
    assert "--columns" in completed("ketwork study --col")


def test_every_kind_of_record_is_shown_again(here, run):
    model, data = digits.model(), digits.held_out()
    kw.study(model, data, max_samples=100).save("study.safetensors")
    kw.compare(model, data, digits.architecture().eval(), max_samples=100).save("two.safetensors")
    kw.collapse_curve(model, data, layers=["hidden"], ranks=[2], max_samples=100).save("curve.safetensors")
    small = kw.compress(model, digits.training(), keep=0.5, max_samples=300)
    small.save("small.safetensors")
    kw.study(model, digits.training(), max_samples=300).detector().save("detector.safetensors")
    operator = waves.ising(waves.chain(4), field=1.0)
    waves.ground_state(
        operator,
        waves.Wave(waves.RBM(alpha=1), operator.space),
        steps=3,
        n_samples=None,
        checkpoint="run.safetensors",
    ).save("ended.safetensors")
    titles = {
        "study": "Study of",
        "two": "Comparison of",
        "curve": "Collapse",
        "small": "Compressed",
        "detector": "Detector",
        "run": "Ground-state run of 3 steps",
        "ended": "Ground-state run of 3 steps",
    }
    for name, title in titles.items():
        done = run("show", f"{name}.safetensors")
        assert done.exit_code == 0, (name, done.stderr)
        assert title.lower() in done.stdout.lower(), (name, done.stdout)
        for form in ("--json", "--csv"):
            assert run("show", f"{name}.safetensors", form).exit_code == 0, name
    printed = json.loads(run("show", "small.safetensors", "--json").stdout)
    assert printed["after"]["parameters"] == small.after.parameters
    assert [row["layer"] for row in printed["table"]] == small.table()["layer"].tolist()
    steps = json.loads(run("show", "run.safetensors", "--json").stdout)
    assert [step["step"] for step in steps] == [0, 1, 2]
    (here / "nothing.safetensors").write_bytes(b"x")
    assert run("show", "nothing.safetensors").exit_code == 2


def test_compress_says_what_becomes_of_accuracy_and_exports(here, run):
    done = run(
        "compress",
        "--keep",
        "0.5",
        "--samples",
        "400",
        "--json",
        "--onnx",
        "small.onnx",
        "--out",
        "small.safetensors",
    )
    assert done.exit_code == 0, done.stderr
    accuracy = json.loads(done.stdout)["settings"]["accuracy"]
    assert 0.5 < accuracy["after"] <= 1
    assert 0.5 < accuracy["before"] <= 1
    held = json.loads(done.stdout)["settings"]["held_back"]
    assert accuracy["before"] * held == pytest.approx(round(accuracy["before"] * held))
    shown = run("show", "small.safetensors").stdout
    assert f"{accuracy['before']:.1%}" in shown
    assert f"{accuracy['after']:.1%}" in shown
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession("small.onnx")
    images, _ = digits.held_out()
    (name,) = [each.name for each in session.get_inputs()]
    network = kw.load_compressed("small.safetensors", digits.architecture()).eval()
    expected = network(images[:7]).detach().numpy()
    np.testing.assert_allclose(
        session.run(None, {name: images[:7].numpy()})[0], expected, rtol=1e-3, atol=1e-4
    )


def test_without_labels_there_is_no_accuracy(here, run):
    torch.manual_seed(0)
    done = run("compress", *SMALL, "--keep", "0.9", "--json")
    if done.exit_code == 0:
        assert json.loads(done.stdout)["settings"]["accuracy"] is None
