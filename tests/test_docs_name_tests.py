"""Pages that say what is tested name tests that there are, and each line of their tables names one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("page", ["docs/reliability.md", "docs/reference/dictionary.md", "SECURITY.md"])
def test_every_test_that_a_page_names_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    last = text.rpartition("## Where it is tested")[2]
    rows = [line for line in last.splitlines() if line.startswith("| ")]
    assert len(rows) > 9
    for row in rows[1:]:
        named = NAMED.findall(row.split("|")[-2])
        assert named, row
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            assert functions.count(name) == 1, (path, name)
