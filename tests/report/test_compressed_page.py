"""The page of a compressed network: its totals, its table and its picture are those of the result."""

import json
import re

import pytest

import ketwork as kw
from ketwork.demo import digits


@pytest.fixture(scope="module")
def result():
    return kw.compress(digits.model(), digits.held_out(), keep=0.3)


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    return result.report(tmp_path_factory.mktemp("page") / "small.html")


def test_the_totals_and_the_layers_are_those_of_the_result(result, path, open_page):
    page = open_page(path)
    totals = page.locator(".totals").first.inner_text()
    assert f"{result.before.parameters:,}" in totals
    assert f"{result.after.parameters:,}" in totals
    assert f"{result.after.parameters / result.before.parameters:.1%}" in totals
    table = result.table()
    changed = table[[not row.reason for row in result.layers]]
    rows = page.locator("#table tbody tr").all()
    assert len(rows) == len(changed)
    for row, (_, expected) in zip(rows, changed.iterrows(), strict=True):
        texts = [text.strip() for text in row.locator("th, td").all_text_contents()]
        assert texts[1] == expected["layer"]
        assert texts[6] == f"{expected['parameters']:,}"
        assert float(texts[7]) == pytest.approx(
            100 * expected["parameters"] / expected["parameters_before"], abs=0.051
        )
    assert page.locator("[data-chart=kept] .mark-rect.role-mark path").count() == len(changed)
    assert (
        f"{result.after.parameters / result.before.parameters:.0%} of the parameters"
        in page.locator(".actions").inner_text()
    )


def test_the_bars_are_the_shares_kept(result, path):
    text = path.read_text()
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    )
    kept = {row.path: row.parameters / row.parameters_before for row in result.layers}
    for point in data["points"]:
        assert point["kept"] == pytest.approx(kept[point["label"]], rel=1e-4)
    assert [point["kept"] for point in data["points"]] == sorted(point["kept"] for point in data["points"])


def test_settings_are_words(result, path, open_page):
    settings = open_page(path).locator(".settings").inner_text().replace("\n", " ")
    assert "heads.loss kl heads.why integer labels" in settings
    assert f"accuracy.before {result.settings['accuracy']['before']:.6g} " in settings
    assert settings.count("ketwork ") == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_screens_of_two_widths(path, open_page, width):
    assert open_page(path, width).evaluate("document.documentElement.scrollWidth") == width
