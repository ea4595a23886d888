"""`ketwork collapse`: the numbers of `kw.collapse_curve`, pictures, files, and bad input."""

import json

import pytest
from rich.cells import cell_len

import ketwork as kw
from ketwork.demo import digits

NETS = "ketwork_cli_nets"
SMALL = ("collapse", f"{NETS}:small", "--data", f"{NETS}:batches")


def test_json_of_the_demonstration_is_the_table_of_kw_collapse_curve(run) -> None:
    done = run("collapse", "--metric", "accuracy", "--json", "--layers", "conv*", "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    expected = kw.collapse_curve(digits.model(), digits.held_out(), "accuracy", layers="conv*")
    assert printed["table"] == expected.table().to_dict("records")
    assert printed["smallest"] == expected.smallest().to_dict("records")
    assert (printed["samples"], printed["passes"]) == (540, expected.passes)
    assert (
        printed["settings"]["command"] == "ketwork collapse --metric accuracy --json --layers 'conv*' --quiet"
    )
    assert printed["settings"]["source"]["data"]["spec"] == "ketwork.demo.digits:held_out"


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_table_fits_and_names_every_layer(run, width: int) -> None:
    done = run(
        "collapse", "--samples", 100, "--layers", "conv*", "--layers", "readout", env={"COLUMNS": str(width)}
    )
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(cell_len, lines)) <= width
    printed = json.loads(
        run("collapse", "--samples", 100, "--layers", "conv*", "--layers", "readout", "--json").stdout
    )
    for row in printed["smallest"]:
        (line,) = (line for line in lines if line.startswith(row["layer"]))
        assert {str(row["d"]), str(row["rank"])} <= set(line.split())
    assert f"{printed['passes']} forward passes" in " ".join(done.stdout.split())


def test_saved_shown_and_drawn(run, here) -> None:
    first = run(*SMALL, "--out", "curve.safetensors", "--out", "curve.svg", "--ranks", "1,2", "--json")
    assert first.exit_code == 0, first.stderr
    assert (here / "curve.svg").read_text().lstrip().startswith("<?xml")
    again = run("show", "curve.safetensors", "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    table = json.loads(first.stdout)["table"]
    assert [row["rank"] for row in table if row["layer"] == "0"] == [1, 2, 6]
    assert run("show", "curve.safetensors").stdout.startswith(f"Collapse curve of {NETS}:small")
    assert run("collapse", "--samples", 20, "--layers", "readout", "--out", "c.png").exit_code == 0
    assert (here / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("collapse", f"{NETS}:small"), 2, "--data"),
        (("collapse", "--data", f"{NETS}:batches"), 2, "MODEL"),
        ((*SMALL, "--metric", "accuracy"), 1, "needs labels"),
        ((*SMALL, "--metric", "auc"), 2, "auc"),
        ((*SMALL, "--ranks", "1,two"), 2, "--ranks must be numbers"),
        ((*SMALL, "--ranks", "7"), 2, "6 at most, but holds 7"),
        ((*SMALL, "--layers", "nine"), 2, "nine"),
        ((*SMALL, "--out", "curve.txt"), 2, "svg"),
        ((*SMALL, "--out", "no/such/curve.svg"), 2, "--out must name a file"),
        ((*SMALL, "--out", "no/such/curve"), 2, "--out must end in"),
        (("collapse", f"{NETS}:small", "--data", f"{NETS}:bad"), 1, "NaN or infinite"),
    ],
)
def test_wrong_usage(run, here, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stdout == ""
    assert not list(here.glob("curve*"))


def test_layers_are_collapsed_about_their_mean_and_samples_drawn_by_the_seed(run) -> None:
    def printed(*options: object) -> dict:
        done = run("collapse", "--samples", 50, "--layers", "readout", "--ranks", "1,4", "--json", *options)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    centred, plain = printed("--center"), printed()
    assert centred["settings"]["center"] is True
    assert centred["table"] != plain["table"]
    assert printed("--around-mean")["table"] == centred["table"]  # as version 0.1 called it
    assert plain["settings"]["taken"] == "50 of 540 samples, 5 of each of 10 labels"
    assert printed("--seed", 0)["table"] == plain["table"]
    assert printed("--seed", 1)["table"] != plain["table"]
    expected = kw.collapse_curve(
        digits.model(), digits.held_out(), layers="readout", ranks=[1, 4], center=True, max_samples=50
    )
    assert centred["table"] == expected.table().to_dict("records")
