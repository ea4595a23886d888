"""`ketwork` itself: its help, its version, and options that do not parse."""

import pytest

import ketwork


@pytest.mark.parametrize(
    "arguments", [("--help",), ("study", "--help"), ("show", "--help"), ("study", "-h"), ()]
)
def test_help_shows_an_example(run, arguments):
    done = run(*arguments)
    assert "Example" in done.output
    assert "ketwork s" in done.output


def test_version(run):
    done = run("--version")
    assert done.exit_code == 0
    assert done.stdout == f"ketwork {ketwork.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("study", "--samples", "0"),
        ("study", "--batch-size", "x"),
        ("study", "--normalize", "none"),
        ("study", "--calls", "some"),
        ("study", "--nonsense"),
        ("show",),
        ("nonsense",),
    ],
)
def test_options_that_do_not_parse_exit_with_2(run, arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
