"""The page on collapse shows what happens."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "collapse.md").read_text()
NUMBER = re.compile(r"-?\d+\.?\d*")


def test_the_example_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for (kind, code), (_, shown) in zip(fenced[::2], fenced[1::2], strict=True):
        assert kind == "python"
        exec(compile(code, "docs/collapse.md", "exec"), names)
        printed = capsys.readouterr().out
        assert NUMBER.sub("", printed).split() == NUMBER.sub("", shown).split()
        numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, shown)]
        assert numbers[0] == pytest.approx(
            numbers[1], abs=4e-3
        )  # one of 540 digits may fall otherwise elsewhere
