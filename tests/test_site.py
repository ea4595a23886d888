"""The check of the built site: links that lead nowhere and files from the network are found, others are not."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[1] / "docs" / "check_site.py"


@pytest.fixture(scope="module")
def problems() -> Callable[[Path], Iterator[str]]:
    return runpy.run_path(str(CHECK))["problems"]


def test_links_that_lead_somewhere_are_no_problem(problems, tmp_path: Path) -> None:
    (tmp_path / "guides").mkdir()
    (tmp_path / "style.css").write_text("")
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="style.css?v=1"><img src="data:image/png;base64,AA==">'
        '<a href="guides/a%20b.html#%CF%88">1</a><a href="#here" id="here">2</a><a href="https://arxiv.org">3</a>'
    )
    (tmp_path / "guides" / "a b.html").write_text('<h1 id="ψ">x</h1><a href="../index.html">up</a>')
    assert [*problems(tmp_path)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<a href="b.html">b</a>', "no file b.html"),
        ('<a href="#there">there</a>', "no place #there"),
        ('<a href="a.html#there">there</a>', "no place a.html#there"),
        ('<img src="picture.png">', "no file picture.png"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //example.org/x.css"),
    ],
)
def test_broken_links_and_foreign_files_are_found(problems, tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.html").write_text(text)
    assert [*problems(tmp_path)] == [f"a.html: {problem}"]


def test_a_folder_without_pages_is_a_problem(problems, tmp_path: Path) -> None:
    assert len([*problems(tmp_path)]) == 1
