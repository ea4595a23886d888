"""The page on compression shows what happens."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[3] / "docs" / "compress.md").read_text()
NUMBER = re.compile(r"-?\d+\.?\d*")


def test_the_example_prints_what_the_page_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for (kind, code), (after, text) in itertools.pairwise([*fenced, ("", "")]):
        if kind != "python":
            continue
        exec(compile(code, "docs/compress.md", "exec"), names)
        printed, shown = capsys.readouterr().out, "" if after else text
        assert NUMBER.sub("", printed).split() == NUMBER.sub("", shown).split()
        numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, shown)]
        # One or two of 540 digits may fall otherwise elsewhere.
        assert numbers[0] == pytest.approx(numbers[1], abs=4e-3)
    small, images = names["small"], names["images"]
    assert (small(images) - names["result"].model(images)).abs().max() == 0
    assert (tmp_path / "small.pt2").stat().st_size > 0
