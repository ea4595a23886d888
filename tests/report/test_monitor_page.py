"""The page of a training run: its alarms, pictures and table are those of the run; two runs stand side by side."""

import json
import re

import pytest
import torch
from torch import nn

import ketwork as kw


def watched(folder, dying: bool = True, end: bool = True) -> kw.MonitorRun:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5))
    monitor = kw.Monitor(net, torch.randn(64, 6), every=10, path=folder, action=lambda alarm: None)
    for step in (0, 10, 20):
        with torch.no_grad():
            net[2].weight += 0.1 * torch.randn(5, 12)
            if dying and step == 20:
                net[0].weight[:6] = 0
                net[0].bias[:6] = -1
        monitor(step)
    if end:
        monitor.close()
    return monitor.run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [watched(tmp_path_factory.mktemp("run"), dying) for dying in (True, False)]


def data_of(path):
    text = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL
    )[1]
    return json.loads(text)


def test_the_page_says_what_the_run_has(runs, tmp_path, open_page):
    page = open_page(runs[0].report(tmp_path / "x.html"))
    assert (
        page.locator(".lead")
        .inner_text()
        .startswith("3 looks at 3 layers, from step 0 to 20. Each look is a pass")
    )
    alarms = page.locator(".alarms li").all()
    assert [alarm.inner_text().partition(" since")[0] for alarm in alarms] == [
        "Dying neurons at layer 1, step 20: dead 0 → 0.5"
    ]
    titles = page.locator(".answer h2").all_inner_texts()
    assert titles[:3] == ["effective rank", "participation ratio", "spread"]
    rows = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.locator("#table tbody tr").all()
    }
    table = runs[0].table()
    assert list(rows) == ["0", "1", "2"]
    for name, cells in rows.items():
        assert float(cells[3].split("±")[0]) == pytest.approx(table.loc[name, "effective_rank"], abs=5.1e-3)
    assert page.locator(".chart svg").count() == 2 * len(titles) + 1
    assert (
        page.locator("[data-chart=map-effective_rank-0] svg path").count() >= 9
    )  # three layers, three looks


def test_all_numbers_are_in_the_page_once(runs, tmp_path):
    points = data_of(runs[0].report(tmp_path / "x.html"))["points"]
    assert len(points) == 9
    for row in runs[0].long().dropna(subset=["value"]).itertuples():
        (point,) = [p for p in points if (p["step"], p["label"]) == (row.step, row.layer)]
        assert point[row.quantity] == pytest.approx(row.value, rel=1e-5)


def test_two_runs_stand_side_by_side(runs, tmp_path, open_page):
    page = open_page(runs[0].report(tmp_path / "x.html", other=runs[1]))
    assert "The other run raised none." in page.locator("main").inner_text()
    titles = page.locator(".answer h2").all_inner_texts()
    assert page.locator(".chart svg").count() == 3 * len(titles) + 1
    assert {p["run"] for p in data_of(tmp_path / "x.html")["points"]} == {0, 1}


def test_a_page_of_a_run_that_goes_on_loads_itself_again(tmp_path):
    on, over = (
        watched(tmp_path / str(end), end=end).report(tmp_path / f"{end}.html").read_text()
        for end in (False, True)
    )
    assert '<meta http-equiv="refresh" content="30">' in on
    assert "the training goes on, or was interrupted" in on
    assert 'http-equiv="refresh"' not in over


def test_a_long_run_shows_some_looks_and_all_alarms(runs, tmp_path):
    from dataclasses import replace

    look = runs[0].looks[0]
    looks = [replace(look, step=i, alarms=runs[0].alarms if i == 501 else ()) for i in range(1000)]
    path = replace(runs[0], looks=tuple(looks)).report(tmp_path / "x.html")
    steps = {point["step"] for point in data_of(path)["points"]}
    assert 160 <= len(steps) <= 162
    assert {0, 501, 999} <= steps


def test_names_in_a_file_are_text(tmp_path, runs):
    from dataclasses import replace

    look = runs[0].looks[-1]
    evil = replace(
        look.layers[0], layer="<img src=x>", values={"x'];alert(1)": look.layers[0].values["norm"]}
    )
    run = replace(runs[0], looks=(replace(look, layers=(evil,)),))
    text = run.report(tmp_path / "x.html").read_text()
    assert "<img src=x" not in text
    assert "alert(1)" not in str(data_of(tmp_path / "x.html")["charts"])
