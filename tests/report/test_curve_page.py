"""The page of a collapse curve: its answer, its picture and its table are those of the curve."""

import math
import re

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.demo import digits


@pytest.fixture(scope="module")
def accuracy():
    return kw.collapse_curve(
        digits.model(), digits.held_out(), "accuracy", layers=["conv2", "relu3", "readout"]
    )


@pytest.fixture(scope="module")
def kl():
    return kw.collapse_curve(
        digits.model(), digits.held_out(), layers="conv1", ranks=[1, 4, 8], max_samples=100
    )


def cells(page):
    """The table's rows as they are read, by layer."""
    rows = page.locator("#table tbody tr").all()
    found = [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]
    return {row[1]: row for row in found}


def test_the_answer_is_that_of_the_curve(accuracy, tmp_path, open_page):
    page = open_page(accuracy.report(tmp_path / "x.html"))
    said = page.locator(".answers").inner_text()
    best = accuracy.smallest().set_index("layer")
    least = best["share"].idxmin()
    rank, d = int(best.loc[least, "rank"]), int(best.loc[least, "d"])
    assert f"{least} needs the smallest share: {rank} of {d} leading eigenstates keep" in said
    assert accuracy.criterion in said
    assert f"One at a time, the layers need {best['rank'].sum()} of {best['d'].sum()}." in said
    assert f"The original network's accuracy is {accuracy.original}" in said
    assert f"540 samples, {accuracy.passes} forward passes over them" in page.locator(".lead").inner_text()


def test_the_table_holds_the_smallest_ranks(accuracy, tmp_path, open_page):
    page = open_page(accuracy.report(tmp_path / "x.html"))
    rows = cells(page)
    table = accuracy.smallest().set_index("layer")
    assert list(rows) == table.index.tolist()
    for name, row in table.iterrows():
        _, _, kind, d, rank, share, weight, value, change = rows[name]
        assert (kind, d, rank) == (row["kind"], str(row["d"]), str(row["rank"]))
        assert float(share) == pytest.approx(100 * row["share"], abs=0.051)
        assert float(weight) == pytest.approx(100 * row["weight"], abs=0.0051)
        assert float(value.split("±")[0]) == pytest.approx(row["value"], abs=5.1e-4)
        assert float(change.split("±")[0]) == pytest.approx(row["change"], abs=5.1e-4)
    page.locator("#table thead").get_by_role("button", name="What is rank?").click()
    assert accuracy.definitions["rank"] in page.locator("#def-rank").inner_text()
    page.keyboard.press("Escape")
    page.get_by_label("Filter").fill("relu")
    assert page.locator("#count").inner_text() == "1 of 3"


def test_every_point_is_drawn_with_a_ring_at_the_smallest_rank(accuracy, tmp_path, open_page):
    page = open_page(accuracy.report(tmp_path / "x.html"))
    chart = page.locator("[data-chart=curves]")
    points = sum(len(layer.points) for layer in accuracy.layers)
    symbols = chart.locator(".mark-symbol.role-mark path")
    assert symbols.count() == points + len(accuracy.layers)
    chart.scroll_into_view_if_needed()
    symbols.last.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert any(layer.label in tip.inner_text() for layer in accuracy.layers)
    assert " ± " in tip.inner_text()


def test_a_kl_is_drawn_by_its_logarithm_and_is_its_own_change(kl, tmp_path, open_page):
    page = open_page(kl.report(tmp_path / "x.html"))
    heads = page.locator("#table thead .sort").all_inner_texts()
    assert heads == ["#", "layer", "kind", "d", "rank", "of d", "variance", "KL (nats)"]
    lead = page.locator(".lead").inner_text()
    assert "100 samples (100 of 540 samples, 10 of each of 10 labels)" in lead
    drawn = [p for p in kl.layers[0].points if p.value > 1e-9]
    rings = int(kl.layers[0].smallest.value > 1e-9)
    assert page.locator("[data-chart=curves] .mark-symbol.role-mark path").count() == len(drawn) + rings
    said = page.locator(".answers").inner_text()
    assert "the layers need" not in said  # of one alone
    assert "The original network's" not in said  # from which the KL is counted


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screens_of_two_widths_light_and_dark(kl, width, scheme, tmp_path, open_page):
    page = open_page(kl.report(tmp_path / "x.html"), width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("[data-chart=curves] svg").bounding_box()["width"] <= width


def test_no_layer_and_no_error_bars(tmp_path):
    """One sample has no standard error, and a network without layers no curve."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3))
    curve = kw.collapse_curve(net, torch.randn(2, 4), max_samples=1, ranks=[1])
    assert math.isnan(curve.layers[0].points[0].value.stderr)
    text = curve.report(tmp_path / "one.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert "NaN" not in data[1]
    empty = kw.CollapseCurve(
        (), "kl", kw.Estimate(0.0), 0.01, 2, 1, curve.settings | {"model": "Nothing"}, {}
    )
    assert "No layer was reached by the data." in empty.report(tmp_path / "none.html").read_text()
