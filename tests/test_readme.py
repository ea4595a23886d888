"""What README shows is what happens: its Python runs, and its table is what the demonstration prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [block for kind, block in fenced if kind == language]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_comments_tell_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    (promised,) = re.findall(r"^print\(layer\.entropy.*# (.*)$", README, flags=re.MULTILINE)
    found = [float(x) for x in NUMBER.findall(printed.splitlines()[-2])]
    assert found == pytest.approx([float(x) for x in NUMBER.findall(promised)], abs=2e-3)


def test_the_table_is_what_the_demonstration_prints() -> None:
    (shown,) = (block for block in blocks("") if block.startswith("Study of"))
    run = subprocess.run(
        [sys.executable, "-m", "ketwork", "study"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "116"},
    )
    printed = "\n".join(line.rstrip() for line in run.stdout.splitlines()[: len(shown.splitlines())])
    assert NUMBER.sub("", printed).split() == NUMBER.sub("", shown).split()
    for line, promised in zip(printed.splitlines(), shown.splitlines(), strict=True):
        numbers, expected = (
            [float(x.replace(",", "")) for x in NUMBER.findall(text)] for text in (line, promised)
        )
        assert numbers == pytest.approx(expected, abs=2e-3)  # the last digit may round otherwise elsewhere
