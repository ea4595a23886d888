"""`ketwork report`, and the pages that other commands write on the way."""

import importlib

import pytest

from ketwork.networks.comparison import compare
from ketwork.networks.study import Study

NETS = "ketwork_cli_nets"
SMALL = (f"{NETS}:small", "--data", f"{NETS}:batches")


def test_a_study_writes_its_page_and_the_saved_study_the_same_one(here, run):
    first = run("study", *SMALL, "--out", "s.safetensors", "--out", "first.html")
    assert first.exit_code == 0
    assert first.stderr == "Saved to s.safetensors\nReport written to first.html\n"
    again = run("report", "s.safetensors")
    assert again.exit_code == 0
    assert again.stdout == ""
    assert again.stderr == "Report written to s.html\n"
    page = (here / "s.html").read_text()
    assert page == (here / "first.html").read_text()
    command = f"ketwork study {' '.join(SMALL)} --out s.safetensors --out first.html"
    assert command not in page
    assert run("report", "s.safetensors", "--with-command").exit_code == 0
    assert command in (here / "s.html").read_text()


def test_the_comparison_comes_into_the_page_unless_refused(here, run):
    assert run("study", *SMALL, "--out", "with.html").exit_code == 0
    assert "repeats" in (here / "with.html").read_text()
    assert run("study", *SMALL, "--out", "without.html", "--no-compare").exit_code == 0
    assert "Not measured here" in (here / "without.html").read_text()
    assert run("study", *SMALL, "--out", "s.safetensors", "--compare").exit_code == 0
    nets = importlib.import_module(NETS)
    expected = compare(nets.small(), nets.batches())
    assert Study.load("s.safetensors").compare().cka.equals(expected.cka)


@pytest.mark.parametrize(
    "arguments",
    [
        ("study", *SMALL),
        ("compare", *SMALL),
        ("compare", *SMALL[:1], *SMALL),
        ("collapse", *SMALL, "--ranks", "1"),
    ],
)
def test_the_command_is_on_the_page_where_it_is_wanted(page_of, arguments):
    assert "--out written.html" not in page_of(*arguments)
    command = " ".join(["ketwork", *arguments, "--with-command --out written.html"])
    assert command in page_of(*arguments, "--with-command")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("study", *SMALL, "--out", "no/x.html"),
            "--out must name a file in a folder that can be written",
        ),
        (("study", *SMALL, "--out", "."), "--out must end in"),
        (("compare", f"{NETS}:small"), "`ketwork compare` needs --data"),
        (("report", "none.safetensors"), "there is no file 'none.safetensors'"),
        (("report", "ketwork_cli_nets.py"), "is not a complete safetensors file"),
    ],
)
def test_what_cannot_be_written_or_read_is_said_before_any_work(here, run, arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_partial_study_still_writes_its_page(here, run):
    done = run("study", f"{NETS}:small", "--data", f"{NETS}:breaks", "--out", "x.html")
    assert done.exit_code == 1
    assert "disk gone" in done.stderr
    page = (here / "x.html").read_text()
    assert "<b>Incomplete.</b>" in page


def test_a_collapse_curve_writes_its_page_and_the_saved_one_the_same(here, run):
    options = ("--out", "curve.safetensors", "--out", "first.html")
    done = run("collapse", f"{NETS}:small", "--data", f"{NETS}:batches", "--ranks", "1,2", *options)
    assert done.exit_code == 0, done.stderr
    assert done.stderr == "Saved to curve.safetensors\nReport written to first.html\n"
    assert run("report", "curve.safetensors", "-o", "again.html").exit_code == 0
    assert (here / "again.html").read_text() == (here / "first.html").read_text()
    assert "How few dimensions does each layer need?" in (here / "first.html").read_text()
    refused = run("collapse", "--out", "no/x.html")
    assert refused.exit_code == 2
    assert "--out must name a file in a folder that can be written" in refused.stderr
