"""The picture of what changed over depth, as a Vega-Lite specification with its data."""

from __future__ import annotations

from typing import Any

import altair as alt

from ketwork.report.charts import AXIS, FIRST, HEIGHT, QUIET, Spec, spec_of

_SECOND = "var(--second)"
_NAMED_LAYERS = 32


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
    base = alt.Chart(alt.NamedData("alike"))
    series = list(dict.fromkeys(point["series"] for point in points))
    scale = alt.Scale(domain=series, range=[FIRST, _SECOND, QUIET][: len(series)])
    x, title = _depth(layers), "similarity"
    color = alt.Color("series:N", scale=scale, legend=alt.Legend(title=None, orient="top", offset=4))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    y = y.axis(format="~f", tickCount=4, minExtent=AXIS, maxExtent=AXIS, titlePadding=8)
    chart = alt.layer(
        base.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=color),
        base.mark_rule(strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=color),
        base.mark_point(filled=True, opacity=1, size=44).encode(x=x, y=y, color=color, tooltip=_TIP),
    )
    return _with_data(chart, "alike", points)


def _moved(points: list[dict[str, Any]], layers: list[str]) -> Spec:
    base = alt.Chart(alt.NamedData("moved"))
    y = alt.Y("value:Q", title="‖ΔW‖/‖W‖")
    y = y.axis(format="~%", tickCount=4, minExtent=AXIS, maxExtent=AXIS, titlePadding=8)
    bars = base.mark_bar(color=FIRST) if len(layers) <= _NAMED_LAYERS else base.mark_bar(color=FIRST, width=3)
    return _with_data(bars.encode(x=_depth(layers, band=True), y=y, tooltip=_TIP), "moved", points)


def _depth(layers: list[str], band: bool = False) -> alt.X:
    if len(layers) > _NAMED_LAYERS:
        x = alt.X("place:Q", title="layer, by depth", scale=alt.Scale(nice=False))
        return x.axis(tickMinStep=1, grid=False)
    scale = (
        alt.Scale(type="band", domain=layers, paddingInner=0.4, paddingOuter=0.2)
        if band
        else alt.Scale(type="point", domain=layers, padding=0.5)
    )
    x = alt.X("label:N", sort=None, title=None, scale=scale)
    return x.axis(labelAngle=-40, labelLimit=150, labelOverlap="greedy", grid=False)


def _with_data(chart: Any, name: str, points: list[dict[str, Any]]) -> Spec:
    return spec_of(chart.properties(width="container", height=HEIGHT)) | {"datasets": {name: points}}


_TIP = [
    alt.Tooltip("label:N", title="layer"),
    alt.Tooltip("series:N", title="quantity"),
    alt.Tooltip("text:N", title="value"),
]
