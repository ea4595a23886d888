"""`ketwork compare`: the numbers of `kw.compare`, within a model and between two, and what ends it early."""

import json

import pytest

from ketwork.demo import digits
from ketwork.networks.comparison import Comparison, compare

NETS = "ketwork_cli_nets"


def test_compare_gives_the_numbers_of_kw_compare(here, run):
    arguments = ("ketwork.demo.digits:model", "--data", "ketwork.demo.digits:held_out")
    done = run("compare", *arguments, "--json", "--out", "c.safetensors", "--out", "c.html")
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    expected = compare(digits.model(), digits.held_out())
    assert [row["cka"] for row in printed["table"]] == expected.table()["cka"].tolist()
    assert printed["n"] == 540
    assert printed["settings"]["source"]["model"]["spec"] == arguments[0]
    assert "other" not in printed["settings"]["source"]
    assert Comparison.load("c.safetensors").cka.equals(expected.cka)
    shown = run("show", "c.safetensors")
    for row in expected.best_match().reset_index().itertuples():
        line = next(line for line in shown.stdout.splitlines() if line.startswith(f"{row.layer} "))
        assert line.split()[1:3] == [row.match, f"{row.cka:.3f}"]
    assert run("report", "c.safetensors", "-o", "again.html").exit_code == 0
    assert (here / "again.html").read_text() == (here / "c.html").read_text()


def test_two_models_are_compared_side_by_side(here, run):
    done = run("compare", f"{NETS}:small", f"{NETS}:small", "--data", f"{NETS}:batches", "--json")
    assert done.exit_code == 0
    same = {
        row["layer"]: row["cka"] for row in json.loads(done.stdout)["table"] if row["layer"] == row["other"]
    }
    assert same == pytest.approx(dict.fromkeys(("0", "1", "2"), 1.0))


def test_data_that_fail_half_way_are_shown_saved_and_reported(here, run):
    arguments = ("compare", f"{NETS}:small", "--data", f"{NETS}:breaks")
    done = run(*arguments, "--out", "c.safetensors", "--out", "c.html", "--json")
    assert done.exit_code == 1
    report, failure = done.stderr.splitlines()
    assert report == "Report written to c.html"
    assert failure == (
        "ketwork: OSError: disk gone. What 32 samples before it gave is shown, and saved to c.safetensors."
    )
    printed = json.loads(done.stdout)
    assert (printed["n"], printed["complete"], "disk" in printed["error"]) == (32, False, True)
    saved = Comparison.load("c.safetensors")
    assert (saved.n, saved.complete) == (32, False)
    assert [row["cka"] for row in printed["table"]] == saved.table()["cka"].tolist()
    assert "<b>Incomplete.</b>" in (here / "c.html").read_text()
    assert "not saved: no --out with .safetensors was given" in run(*arguments).stderr


def test_data_that_fail_at_once_leave_nothing(here, run):
    done = run("compare", f"{NETS}:small", "--data", f"{NETS}:breaks_at_once", "--out", "c.safetensors")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "ketwork: OSError: no disk\n")
    assert not (here / "c.safetensors").exists()


def test_the_unit_that_is_compared(here, run):
    def printed(*options):
        arguments = ("ketwork.demo.digits:model", "--data", "ketwork.demo.digits:held_out", "--samples", 30)
        done = run("compare", *arguments, "--layers", "conv*", "--json", *options)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    samples, positions, flat = (printed("--unit", unit) for unit in ("sample", "position", "flat"))
    assert [each["settings"]["unit"] for each in (samples, positions, flat)] == ["sample", "position", "flat"]
    assert (samples["n"], positions["n"], flat["n"]) == (30, 30 * 64, 30)
    assert [flat["table"][0][d] for d in ("d", "d_other")] == [16 * 64, 32 * 64]
    old = printed("--positions")  # as version 0.1 called it
    assert old["table"] == positions["table"]
    assert printed()["table"] == samples["table"]
    assert samples["settings"]["taken"] == "30 of 540 samples, 3 of each of 10 labels"
    assert printed("--seed", 1)["table"] != samples["table"]
