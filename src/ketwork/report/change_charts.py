"""The pictures of what changed between two models, over depth, as Vega-Lite specifications with their data."""

from __future__ import annotations

from typing import Any

import altair as alt

from ketwork.report.chart_style import AXIS, FIRST, HEIGHT, Spec, spec_of
from ketwork.report.depth_charts import NAMED_LAYERS, coloured, layer_axis, marks_of, tip


def changes_charts(points: list[dict[str, Any]]) -> dict[str, Spec]:
    """How alike the layers of one name are, with error bars, and below it how much their weights changed."""
    alike = [point for point in points if point["series"] != "weights"]
    weights = [point for point in points if point["series"] == "weights"]
    layers = list(dict.fromkeys(point["label"] for point in points))
    charts = {"changed": _alike(alike, layers)}
    if weights:
        charts["moved"] = _moved(weights, layers)
    return charts


def _alike(points: list[dict[str, Any]], layers: list[str]) -> Spec:
    dense = len(layers) > NAMED_LAYERS
    colour = coloured({point["series"]: point["series"] for point in points})
    lines = alt.Chart(alt.NamedData("alike"))
    marks = marks_of(lines, layer_axis(dense, domain=layers), "similarity", colour, dense, zero=False)
    return _with_data(alt.layer(*marks), "alike", points)


def _moved(points: list[dict[str, Any]], layers: list[str]) -> Spec:
    dense = len(layers) > NAMED_LAYERS
    base = alt.Chart(alt.NamedData("moved"))
    y = alt.Y("value:Q", title="‖ΔW‖/‖W‖")
    y = y.axis(format="~%", tickCount=4, minExtent=AXIS, maxExtent=AXIS, titlePadding=8)
    bars = base.mark_bar(color=FIRST, width=3) if dense else base.mark_bar(color=FIRST)
    x = layer_axis(dense, domain=layers, band=True)
    return _with_data(bars.encode(x=x, y=y, tooltip=tip()), "moved", points)


def _with_data(chart: Any, name: str, points: list[dict[str, Any]]) -> Spec:
    return spec_of(chart.properties(width="container", height=HEIGHT)) | {"datasets": {name: points}}
