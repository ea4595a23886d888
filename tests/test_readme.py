"""README shows what happens: its Python runs, its table is what the demonstration prints, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [block for kind, block in fenced if kind == language]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "study.html").stat().st_size > 500_000


def test_the_table_is_what_the_demonstration_prints() -> None:
    (shown,) = (block for block in blocks("") if block.startswith("Study of"))
    run = subprocess.run(
        [sys.executable, "-m", "ketwork", "study"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "120"},
    )
    printed = "\n".join(line.rstrip() for line in run.stdout.splitlines()[: len(shown.splitlines())])
    assert NUMBER.sub("", printed).split() == NUMBER.sub("", shown).split()
    for line, promised in zip(printed.splitlines(), shown.splitlines(), strict=True):
        numbers, expected = (
            [float(x.replace(",", "")) for x in NUMBER.findall(text)] for text in (line, promised)
        )
        assert numbers == pytest.approx(expected, abs=2e-3)  # the last digit may round otherwise elsewhere


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in missing if not (page.parent / link).exists()] == []
