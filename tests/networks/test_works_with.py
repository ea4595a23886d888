"""`docs/works-with.md` is true: three layers of each architecture are computed once more, without ketwork."""

import re

import pytest

from .works_with import ARCHITECTURES, PAGE, TOLERANCE, lines, page_head, row_of, studied

pytest.importorskip("transformers", "5.0", reason="The page is of the versions in constraints.txt.")

TABLE = "|---|---|---|---|---|---|---|---|---|\n"
NUMBER = re.compile(r"-?\d+\.\d+")


def _written() -> dict[str, list[str]]:
    """The page's lines by architecture."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").partition(TABLE)[2].splitlines():
        name = line.split("|")[1].strip()
        if name:
            found[name] = []
        found[[*found][-1]].append(line)
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_three_layers_are_right_or_refused_as_the_page_says(name: str) -> None:
    record, expected = studied(name)
    assert record.samples == 12
    for path, wanted in expected.items():
        row = row_of(record, path)
        if row is None:
            assert record.skipped[path]
            continue
        assert (row.kets, row.d) == (wanted.vectors, wanted.d), path
        for measure in ("effective_rank", "coherence"):
            value, right = row.estimates[measure].plain, getattr(wanted, measure)
            assert value == pytest.approx(right, rel=TOLERANCE, abs=TOLERANCE), (path, measure)
    new, old = lines(name, record), _written()[name]
    assert [NUMBER.sub("…", line) for line in new] == [NUMBER.sub("…", line) for line in old]
    numbers = [[float(number) for line in table for number in NUMBER.findall(line)] for table in (new, old)]
    assert numbers[0] == pytest.approx(numbers[1], abs=2e-3)


def test_the_page_has_these_architectures_and_no_others() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(page_head())
    assert [*_written()] == [*ARCHITECTURES]
    libraries = [each.library for each in ARCHITECTURES.values()]
    assert libraries.count("transformers") >= 25
    assert libraries.count("timm") >= 18
    assert libraries.count("ways") >= 13
