"""The page of a training run: quantities over steps and layers, alarms on the time line, two runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ketwork.networks.monitor import QUANTITIES, Alarm, Look, MonitorRun
from ketwork.quantum import Estimate
from ketwork.records import presents
from ketwork.report.document import Page, charts_module, target_of, write_page
from ketwork.report.page_tables import Cell, Column, Table, without_zero
from ketwork.report.words import plus_minus

REFRESH = 30
"""Seconds after which the page of a run that goes on loads itself again."""

Spec = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """A quantity on the page: its name and title, and the names of its pictures."""

    name: str
    title: str
    maps: tuple[tuple[str, str], ...]
    lines: str


@presents(MonitorRun, "page")
def write_monitor(
    run: MonitorRun, path: str | Path, other: MonitorRun | None = None, *, with_command: bool = False
) -> Path:
    """Writes the page of a run, beside an `other` one where that is given, and returns its path.

    `with_command` has it absolute paths.

    Raises:
        ImportError: the extra `report` is missing.
        OSError: `path` cannot be written.
    """
    return write_page(target_of(path), run, _page(run, other), with_command=with_command)


def _page(run: MonitorRun, other: MonitorRun | None) -> Page:
    charts_module()  # which says what to install where it is missing
    from ketwork.report import monitor_charts as charts

    runs = [run] if other is None else [run, other]
    names = ["this run"] if other is None else ["this run", "the other run"]
    drawn: dict[str, Spec] = {}
    panels = []
    for name in dict.fromkeys(name for each in runs for name in each.quantities if _some(runs, name)):
        known = QUANTITIES.get(name)
        if (
            known is None
        ):  # of a newer version: what it is called would be a part of the pictures' expressions
            continue
        title, percent = known.title, known.show == "percent"
        own = [_mark(alarm) for alarm in run.alarms if alarm.quantity == name]
        maps, high = [], 0
        for number, each in enumerate(runs):
            if _some([each], name):
                high = len(
                    {layer.key for look in each.looks for layer in look.layers if name in layer.values}
                )
                drawn[f"map-{name}-{number}"] = charts.map_chart(name, title, number, high, percent)
                maps.append((f"map-{name}-{number}", names[number]))
        drawn[f"lines-{name}"] = charts.lines_chart(high, name, title, percent, own, names)
        panels.append(Panel(name, title, tuple(maps), f"lines-{name}"))
    if run.alarms:
        ends = run.steps[0], max(run.steps[-1], run.steps[0] + 1)
        drawn["alarms"] = charts.alarms_chart([_mark(alarm) for alarm in run.alarms], ends)
    points = [
        point
        for number, each in enumerate(runs)
        for look in _visible(each.looks, charts.MOST_LOOKS)
        for point in _points(look, number, names[number])
    ]
    content = {
        "panels": panels,
        "table": _table(run),
        "other": other,
        "refresh": None if run.ended or not run.looks else REFRESH,
        "visible": min(len(run), charts.MOST_LOOKS),
    }
    title = str(run.settings.get("model", "a network"))
    data = {"charts": drawn, "points": points}
    return Page("monitor.html.j2", title, "training run", content, run.definitions, data)


def _some(runs: Sequence[MonitorRun], name: str) -> bool:
    """Whether some layer has a value of the quantity."""
    return any(
        math.isfinite(layer.values.get(name, Estimate()))
        for run in runs
        for look in run.looks
        for layer in look.layers
    )


def _visible(looks: Sequence[Look], most: int) -> list[Look]:
    """Looks in equal steps and those that raised alarms, and always the last."""
    if len(looks) <= most:
        return list(looks)
    every = len(looks) / most
    places = {int(i * every) for i in range(most)} | {len(looks) - 1}
    return [look for i, look in enumerate(looks) if i in places or look.alarms]


def _points(look: Look, run: int, name: str) -> list[dict[str, Any]]:
    """The layers of a look as the pictures take them."""
    points = []
    for place, layer in enumerate(look.layers):
        point = {"run": run, "name": name, "step": look.step, "place": place + 1, "label": layer.label}
        for quantity, value in layer.values.items():
            point |= {quantity: value.value, f"{quantity}_stderr": value.stderr}
        points.append(point)
    return points


def _mark(alarm: Alarm) -> dict[str, Any]:
    return {"step": alarm.step, "title": alarm.title, "layer": alarm.layer, "change": alarm.change}


def _table(run: MonitorRun) -> Table:
    """The layers at the last look; quantities that none has are skipped."""
    layers = run.looks[-1].layers if run.looks else ()
    columns = [Column("place", "#"), Column("layer", "layer", words=True), Column("kind", "kind", words=True)]
    columns.append(Column("d", "d"))
    cells = [
        [Cell(str(i + 1), i + 1) for i in range(len(layers))],
        [Cell(x.label, x.label, words=True, head=True, place=i) for i, x in enumerate(layers)],
        [Cell(x.kind, x.kind, words=True) for x in layers],
        [Cell(f"{x.d:,}", x.d) for x in layers],
    ]
    for name in run.quantities:
        known = QUANTITIES.get(name)
        share = known is not None and known.show == "percent"
        values = [(100 if share else 1) * layer.values.get(name, Estimate()) for layer in layers]
        if known is None or all(map(math.isnan, values)):
            continue
        columns.append(Column(name, known.title, "%" if share else known.unit))
        column = []
        for value, text in zip(values, plus_minus(values), strict=True):
            number, _, error = text.strip().partition(" ± ")
            column.append(Cell(number, "" if math.isnan(value) else value.value, without_zero(error)))
        cells.append(column)
    return Table(tuple(columns), tuple(zip(*cells, strict=True)))
