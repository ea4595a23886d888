"""Plain words: names and prose keep to the standard terms of machine learning and of quantum information."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "ketwork"

LATER: tuple[str, ...] = ()
"""Files and folders that are not checked yet."""

NOT_IN_NAMES = {
    *(
        "asked",
        "found",
        "harm",
        "knowledge",
        "knows",
        "mend",
        "namesake",
        "room",
        "shown",
        "surely",
        "tell",
        "told",
    ),
    "whole",
}
OLD_NAMES = {
    ("src/ketwork/networks/runtime/distributed.py", "found"),
    ("src/ketwork/networks/study/layer.py", "knowledge"),
}
"""Names of version 0.1 that still work, each with a warning."""

NOT_IN_PROSE = [
    r"(read|reads|reading) rightly",
    r"surely lies?",
    r"(layers )?that a reader would draw",
    r"draw(n|s)? as layers",
    r"left (out|alone)",
    r"untouched network",
    r"go(es)? on from",
    r"whole file",
    r"mend(s|ed|ing)?",
    r"namesakes?",
    r"which neighbours say the same",
    r"from superposition to decision",
    r"where are the dimensions, and where do they collapse",
    r"null, of random labels",
    r"linear readouts?",
    r"sharpest collapse",
    r"aligns? with single neurons",
    r"luckiest",
    r"rooms?",
    r"at the door",
    r"without a word",
    r"told",
    r"harm(s|ed|ing|less)?",
    r"what (a |the )?layers? knows?",
    r"at the outset",
    r"for so many",
]
QUANTUM = (r"discarded weight",)
"""Words of quantum mechanics, for the quantum package and the pages."""

OF_QUANTUM = ("src/ketwork/quantum", "docs/", "README.md")
OLD_FORMATS = {
    ("src/ketwork/networks/study/upgrade.py", "room"),
}
"""Keys in files of version 0.1."""


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _checked(paths: list[Path]) -> list[Path]:
    names = {path: _relative(path) for path in sorted(paths)}
    return [p for p, name in names.items() if not any(f"{name}/".startswith(f"{one}/") for one in LATER)]


MODULES = _checked([*SOURCE.rglob("*.py")])
PAGES = _checked([*SOURCE.rglob("*.j2"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The names that a module gives, with their lines: to what it defines, assigns, takes and imports."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.arg(arg=name)
            ):
                yield node.lineno, name
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield node.lineno, name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from ((alias.lineno, alias.asname) for alias in aliases if alias.asname)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The texts and comments of a module, each with the line where it begins."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line, words = token.start[0], token.string.lstrip("#")
            if comments and comments[-1][0] + comments[-1][1].count("\n") + 1 == line:
                comments[-1] = comments[-1][0], f"{comments[-1][1]}\n{words}"
            else:
                comments.append((line, words))
    yield from comments


def phrases(text: str, path: str) -> Iterator[tuple[int, str]]:
    """Phrases to avoid in a text, each with the number of lines before it."""
    wanted = [*NOT_IN_PROSE, *(() if path.startswith(OF_QUANTUM) else QUANTUM)]
    for hit in re.finditer(rf"\b({'|'.join(wanted)})\b".replace(" ", r"\s+"), text, re.IGNORECASE):
        if (path, hit.group()) not in OLD_FORMATS:
            yield text.count("\n", 0, hit.start()), " ".join(hit.group().split())


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_names_are_plain(path: Path) -> None:
    given = names(ast.parse(path.read_text(encoding="utf-8")))
    words = {_relative(path): path.stem} | {f"line {line}: {name}": name for line, name in given}
    assert [
        place
        for place, name in words.items()
        if (_relative(path), name) not in OLD_NAMES and NOT_IN_NAMES & set(name.lower().split("_"))
    ] == []


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_docstrings_comments_and_messages_are_plain(path: Path) -> None:
    texts = prose(path.read_text(encoding="utf-8"))
    assert [
        f"line {line + below}: {phrase}"
        for line, text in texts
        for below, phrase in phrases(text, _relative(path))
    ] == []


@pytest.mark.parametrize("path", PAGES, ids=_relative)
def test_pages_are_plain(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":  # its tables name what was
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    assert [f"line {line + 1}: {phrase}" for line, phrase in phrases(text, _relative(path))] == []


def test_all_kinds_of_names_are_seen() -> None:
    code = (
        "import a as told\nfrom b import c as asked\ndef harm(room, *whole, **shown): mend = namesake.tell = 1\n"
        "class Found: knows: int\ntry: 1\nexcept E as surely: 2\nfor i, knowledge in x: found_it = 1\n"
        "match y:\n    case [who, *rest] as matched: 1\n"
    )
    assert {name for _, name in names(ast.parse(code))} == {
        *("told", "asked", "harm", "room", "whole", "shown", "mend", "tell", "Found", "knows", "surely", "i"),
        *("knowledge", "found_it", "who", "rest", "matched"),
    }


def test_phrases_are_seen_over_lines_and_within_texts() -> None:
    code = '"""One that was left\n    out."""\nx = f"a {y} without " "a word"  # goes\n# on from\n'
    seen = [(line + below, each) for line, text in prose(code) for below, each in phrases(text, "x.py")]
    assert sorted(seen) == [(1, "left out"), (3, "goes on from"), (3, "without a word")]
    assert [each for _, each in phrases("discarded weight; mushroom; harmonic; Told", "x.py")] == [
        "discarded weight",
        "Told",
    ]
    assert [*phrases("discarded weight", "src/ketwork/quantum/states.py")] == []
