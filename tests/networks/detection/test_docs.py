"""The page on detection shows what happens."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "detection.md").read_text()
NUMBER = re.compile(r"\d+\.\d+")


def test_the_example_prints_what_the_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    (kind, code), (_, shown) = fenced[:2]
    assert kind == "python"
    exec(compile(code, "docs/detection.md", "exec"), {})
    printed = capsys.readouterr().out
    assert NUMBER.sub("", printed).split() == NUMBER.sub("", shown).split()
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.5)  # two of 540 digits may fall otherwise elsewhere
