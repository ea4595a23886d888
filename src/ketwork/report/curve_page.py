"""The page of a collapse curve: how few eigenstates of each layer a network needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ketwork.networks.collapse import CollapseCurve
from ketwork.records import presents
from ketwork.report import actions, findings
from ketwork.report.commands import Commands
from ketwork.report.document import Page, charts_module, target_of, write_page
from ketwork.report.page_tables import smallest_ranks
from ketwork.report.words import short


@presents(CollapseCurve, "page")
def write_curve(curve: CollapseCurve, path: str | Path, *, with_command: bool = False) -> Path:
    """Writes the page of a collapse curve and returns its path; `with_command` has it the command line and paths.

    Raises:
        ImportError: the extra `report` is missing.
        OSError: `path` cannot be written.
    """
    page = _page(curve, Commands(curve.settings, not with_command))
    return write_page(target_of(path), curve, page, with_command=with_command)


def _page(curve: CollapseCurve, say: Commands) -> Page:
    charts_module()  # which says what to install where it is missing
    from ketwork.report.curve_charts import curve_chart

    log = curve.settings["to_original"]
    source = curve.settings.get("source", {})
    data: dict[str, Any] = {"charts": {}, "points": _points(curve, log)}
    if curve.layers:
        data["charts"]["curves"] = curve_chart(curve.label, curve.limit, len(curve.layers), log=log)
    content = {
        "data_spec": short(str(source.get("data", {}).get("spec", ""))),
        "shrunk": findings.shrunk(curve),
        "table": smallest_ranks(curve),
    }
    title = str(source.get("model", {}).get("spec") or curve.settings["model"])
    definitions, suggested = dict(curve.definitions), actions.of_curve(curve, say)
    return Page("curve.html.j2", short(title), "collapse curve", content, definitions, data, suggested)


def _points(curve: CollapseCurve, log: bool) -> list[dict[str, Any]]:
    """Every rank of every layer with its error bar; below 0 there is nothing on a logarithmic axis."""
    points = []
    for place, layer in enumerate(curve.layers):
        for point in layer.points:
            value = point.value.value
            error = point.value.stderr if math.isfinite(point.value.stderr) else 0.0
            points.append(
                {
                    "id": place,
                    "place": place + 1,
                    "label": layer.label,
                    "rank": point.rank,
                    "value": value,
                    "low": max(value - error, value / 1000) if log else value - error,
                    "high": value + error,
                    "text": str(point.value),
                    "weight": point.weight,
                    "smallest": point is layer.smallest,
                }
            )
    return points
