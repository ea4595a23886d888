"""What changed between two models, in sentences, in the terminal's table, in plots and on the page."""

import copy
import io

import matplotlib
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn

import ketwork as kw
from ketwork.report.changes import sentences, share, what_changed
from ketwork.report.words import plus_minus

matplotlib.use("Agg")

X = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(12, 16), nn.Tanh()), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)]
    before = nn.Sequential(*layers)
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[1].weight.add_(torch.randn(12, 2) @ torch.randn(2, 16))
    return before, after


@pytest.fixture(scope="module")
def comparison() -> kw.Comparison:
    before, after = networks()
    record = kw.compare(before, X, after)
    assert record is not None
    return record


def test_the_three_most_changed_are_named_first(comparison) -> None:
    what = what_changed(comparison)
    assert what is not None
    ordered = comparison.changes(by="cka")
    assert [name for name, _ in what.most] == [*ordered.index[:3]]
    for name, value in what.most:
        assert value.value == ordered.loc[name, "cka"]
        assert value.stderr == ordered.loc[name, "cka_stderr"] > 0
    first, second = sentences(what)
    names = [name for name, _ in what.most]
    assert (
        first.index(f"{names[0]} differs most")
        < first.index(f"then {names[1]} (")
        < first.index(f"and {names[2]} (")
    )
    row = comparison.changes().loc["1"]
    assert second == (
        f"1 of 6 weights changed, ‖ΔW‖/‖W‖ = {share(what.relative)} in all; most in 1 "
        f"({share(row['weight_change'])}: rank 2, effective rank {row['weight_effective_rank']:.1f}, in 1.weight)."
    )


def test_all_weights_that_changed_are_named_and_where_a_difference_begins(tmp_path, open_page) -> None:
    before, after = networks()
    with torch.no_grad():
        after[3].bias.add_(0.02)
        after[0][0].weight.add_(0.2 * torch.randn(16, 12))
    record = kw.compare(before, X, after)
    what = what_changed(record)
    assert what.start == "0.0"
    assert [name for name, _ in what.others] == ["0.0", "3"]
    moved = (after[0][0].weight - before[0][0].weight).detach()
    all_weights = torch.cat([before[0][0].weight, before[0][0].bias[:, None]], dim=1).detach()
    assert what.others[0][1] == pytest.approx(float(moved.norm() / all_weights.norm()), rel=1e-5)
    (first, second) = sentences(what)
    assert "; the first that differs is 0.0. For" in first
    assert second.endswith(f"in 1.weight), 0.0 ({share(what.others[0][1])}), 3 ({share(what.others[1][1])}).")
    answer = open_page(record.report(tmp_path / "c.html")).locator(".answer").first.inner_text()
    assert "the first that differs is layer 0.0." in answer
    assert f"layer 3 {share(what.others[1][1])}." in answer


def test_networks_that_are_alike(comparison) -> None:
    before, _ = networks()
    record = kw.compare(before, X, copy.deepcopy(before))
    what = what_changed(record)
    assert sentences(what) == [
        f"All {len(record.rows)} layers of the same name are alike (debiased CKA 1.000).",
        "None of 6 weights changed.",
    ]
    assert what_changed(kw.compare(before, X)) is None
    other = kw.compare(before, X, nn.ModuleDict({"a": nn.Linear(12, 3)})["a"])
    assert what_changed(other) is None


def test_weights_that_cannot_be_compared_say_why() -> None:
    before, after = networks()
    after[3] = nn.Linear(12, 7)
    said = sentences(what_changed(kw.compare(before, X, after)))
    assert (
        said[-1] == "No weight change (–) of 3: 3.weight: the shapes differ: (5, 12) before, (7, 12) after."
    )


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_has_a_row_for_each_layer(comparison, width: int) -> None:
    from ketwork.report import render_comparison

    out = io.StringIO()
    render_comparison(comparison, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for name, row in comparison.changes().iterrows():
        (line,) = [line for line in lines if line.startswith(f"{name} ") and "±" in line]
        assert f"{row['cka']:.3f}" in line
        assert share(row["weight_change"]) in line
    assert "‖ΔW‖/‖W‖" in out.getvalue()


def test_the_plot_draws_them_over_depth(comparison) -> None:
    ax = comparison.plot(measure="changes")
    frame = comparison.changes()
    lines = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert lines["‖ΔW‖/‖W‖"] == pytest.approx(frame["weight_change"].tolist(), nan_ok=True)
    drawn = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in ax.containers}
    assert drawn["debiased CKA"] == frame["cka"].tolist()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [*frame.index]
    matplotlib.pyplot.close("all")


def test_the_page_says_what_changed(comparison, tmp_path, open_page) -> None:
    page = open_page(comparison.report(tmp_path / "c.html"))
    what = what_changed(comparison)
    answer = page.locator(".answer").first.inner_text()
    assert answer.startswith("What changed?")
    for name, value in what.most:
        assert name in answer
        assert plus_minus([value])[0].strip() in answer
    assert (
        page.locator("[data-chart=changed] svg").count()
        == page.locator("[data-chart=moved] svg").count()
        == 1
    )
    rows = page.locator("#table tbody tr")
    assert rows.count() == len(comparison.changes())
    heads = [head.split("\n")[0] for head in page.locator("#table thead th").all_inner_texts()]
    place = heads.index("rank of ΔW")
    cells = [rows.nth(i).locator("th, td").nth(place).inner_text() for i in range(rows.count())]
    expected = comparison.changes()["weight_rank"]
    assert cells == ["–" if pd.isna(rank) else str(rank) for rank in expected]


def test_the_bars_of_the_weights_stand_below_the_points(comparison, tmp_path, open_page) -> None:
    page = open_page(comparison.report(tmp_path / "c.html"))
    middles = "nodes => nodes.map(n => n.getBoundingClientRect()).map(r => r.x + r.width / 2)"
    points = page.locator("[data-chart=changed] .mark-symbol.role-mark path").evaluate_all(middles)
    bars = page.locator("[data-chart=moved] .mark-rect.role-mark path").evaluate_all(middles)
    frame = comparison.changes()
    places = sorted({round(x) for x in points})
    assert len(places) == len(frame)
    weighed = [place for place, change in zip(places, frame["weight_change"], strict=True) if change >= 0]
    assert bars == pytest.approx(weighed, abs=1.5)
