"""The pictures of a detector as Vega-Lite specifications, their data inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from ketwork.report.chart_style import AXIS, FIRST, HEIGHT, INK, Spec, spec_of
from ketwork.report.histograms import CALIBRATION, SCORED, Histogram

_COLORS = alt.Scale(domain=[CALIBRATION, SCORED], range=[FIRST, "var(--second)"])


def score_chart(parts: Sequence[Histogram], threshold: float) -> Spec:
    """Histograms of scores over each other, and a rule at the threshold of alarms."""
    bins = [
        {"kind": part.name, "low": float(low), "high": float(high), "share": float(share)}
        for part in parts
        for low, high, share in zip(part.edges[:-1], part.edges[1:], part.shares, strict=True)
        if share > 0
    ]
    base = alt.Chart(alt.InlineData(bins))
    y = alt.Y("share:Q", title="share of the samples").axis(
        format=".0%", tickCount=5, minExtent=AXIS, maxExtent=AXIS
    )
    drawn: list[Any] = [
        base.mark_rect(opacity=0.6).encode(
            x=alt.X("low:Q", title="score", scale=alt.Scale(zero=False)).axis(
                format="~g", grid=False, tickCount=6
            ),
            x2="high:Q",
            y=y.scale(zero=True),
            y2=alt.datum(0),
            color=alt.Color("kind:N", title=None, scale=_COLORS, legend=alt.Legend(orient="top")),
            tooltip=[
                alt.Tooltip("kind:N", title="of"),
                alt.Tooltip("low:Q", title="score from", format=".4g"),
                alt.Tooltip("high:Q", title="to", format=".4g"),
                alt.Tooltip("share:Q", title="share", format=".1%"),
            ],
        )
    ]
    if math.isfinite(threshold):
        rule = alt.Chart(alt.InlineData([{"level": threshold}])).mark_rule(strokeDash=[2, 4], color=INK)
        drawn.append(rule.encode(x=alt.X("level:Q", title="score")))
    return spec_of(alt.layer(*drawn).properties(width="container", height=HEIGHT + 40))


def layer_chart(points: list[dict[str, Any]]) -> Spec:
    """Each layer's part in the score along the depth: the median (line) and nine samples of ten (band)."""
    base = alt.Chart(alt.InlineData(points))
    x = alt.X("place:Q", title="layer, in order of execution").axis(
        grid=False, tickCount=min(max(point["place"] for point in points) - 1, 10), format="d"
    )
    y = alt.Y("median:Q", title="−log tail probability (nats)").axis(
        tickCount=5, minExtent=AXIS, maxExtent=AXIS, format="~g"
    )
    color = alt.Color("kind:N", title=None, scale=_COLORS, legend=alt.Legend(orient="top"))
    tip = [alt.Tooltip("label:N", title="layer"), alt.Tooltip("kind:N", title="of")]
    tip += [alt.Tooltip(f"{name}:Q", title=title, format=".3g") for name, title in _TIPS.items()]
    band = base.mark_area(opacity=0.15).encode(
        x=x, y=alt.Y("low:Q", title="−log tail probability (nats)"), y2="high:Q", color=color
    )
    line = base.mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(filled=True, size=30)).encode(
        x=x, y=y, color=color, tooltip=tip
    )
    return spec_of(alt.layer(band, line).properties(width="container", height=HEIGHT))


_TIPS = {"median": "median", "low": "5 %", "high": "95 %"}
