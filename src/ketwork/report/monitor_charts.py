"""The pictures of a training run as Vega-Lite specifications, of the page's `points`: a row a look and layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from ketwork.report.chart_style import AXIS, HEIGHT, INK, Spec, by_depth, spec_of

_CAUTION = "var(--caution)"
_SHORT = "length(datum.label) > 24 ? '…' + slice(datum.label, -23) : datum.label"
_ROW, _MOST_HIGH, _LEAST_HIGH = 16, 420, 48
_BIN = 24
MOST_LOOKS = 160
"""Looks that a page shows of a run; of more, evenly spaced ones and those with alarms."""


def map_chart(quantity: str, title: str, run: int, layers: int, percent: bool) -> Spec:
    """A quantity over looks (across) and layers (down, from the first to the last), of one run."""
    y = alt.Y("label:N", sort=alt.EncodingSortField("place"), title=None)
    y = y.axis(ticks=False, domain=False, labelExpr=_SHORT, labelOverlap=True, labelLimit=180)
    x = alt.X("step:O", title="step")
    x = x.axis(labelAngle=0, labelOverlap=True, ticks=False, domain=False, format="~s")
    colour = alt.Color(f"{quantity}:Q", title=None, scale=alt.Scale(scheme="viridis"))
    colour = colour.legend(orient="top", gradientThickness=8, gradientLength=140, format=_format(percent))
    chart = (
        alt.Chart(alt.NamedData("points"))
        .transform_filter(f"datum.run === {run} && isValid(datum.{quantity})")
        .mark_rect()
        .encode(x=x, y=y, color=colour, tooltip=_tip(quantity, title, percent))
    )
    high = min(_MOST_HIGH, max(_LEAST_HIGH, _ROW * layers))
    return spec_of(chart.properties(width="container", height=high))


def lines_chart(
    layers: int,
    quantity: str,
    title: str,
    percent: bool,
    alarms: Sequence[dict[str, Any]],
    runs: Sequence[str],
) -> Spec:
    """A quantity over steps, a line a layer with the band of its error; a rule at each of its alarms.

    A second run's lines are dashed.
    """
    base = alt.Chart(alt.NamedData("points")).transform_filter(f"isValid(datum.{quantity})")
    error = f"(isValid(datum.{quantity}_stderr) ? datum.{quantity}_stderr : 0)"
    base = base.transform_calculate(
        low=f"datum.{quantity} - {error}",
        high=f"datum.{quantity} + {error}",
        line="datum.run + ':' + datum.place",
    )
    x = alt.X("step:Q", title="step", scale=alt.Scale(nice=False)).axis(format="~s", grid=False)
    y = alt.Y(f"{quantity}:Q", title=title, scale=alt.Scale(zero=False))
    y = y.axis(format=_format(percent), tickCount=5, minExtent=AXIS, maxExtent=AXIS)
    encoded = dashed = base.encode(x=x, y=y, detail="line:N", color=by_depth(layers))
    if len(runs) > 1:
        legend = alt.Legend(orient="top", symbolType="stroke", symbolSize=200)
        dash = alt.StrokeDash("name:N", title=None, sort=list(runs), legend=legend)
        dashed = encoded.encode(strokeDash=dash.scale(domain=list(runs), range=[[1, 0], [4, 3]]))
    band = base.mark_area(opacity=0.15).encode(
        x=x, y=alt.Y("low:Q", title=title), y2="high:Q", detail="line:N", color=by_depth(layers)
    )
    parts: list[alt.Chart] = [
        band,
        dashed.mark_line(strokeWidth=1.5),
        encoded.mark_point(filled=True, size=18, opacity=1).encode(tooltip=_tip(quantity, title, percent)),
    ]
    if alarms:
        marks = alt.Chart(alt.InlineData(list(alarms)))
        parts.insert(
            0,
            marks.mark_rule(color=_CAUTION, strokeDash=[3, 3]).encode(x=alt.X("step:Q", title="step")),
        )
    return spec_of(alt.layer(*parts).properties(width="container", height=HEIGHT + 20))


def alarms_chart(alarms: Sequence[dict[str, Any]], steps: tuple[int, int]) -> Spec:
    """Alarms along the steps, a row for each kind."""
    x = alt.X("step:Q", title="step", scale=alt.Scale(domain=list(steps), nice=False))
    x = x.axis(format="~s", grid=False)
    y = alt.Y("title:N", title=None).axis(ticks=False, domain=False, labelLimit=220)
    tip = [alt.Tooltip("step:Q", format=",d"), alt.Tooltip("layer:N"), alt.Tooltip("change:N")]
    chart = (
        alt.Chart(alt.InlineData(list(alarms)))
        .mark_point(filled=True, size=90, opacity=1, color=_CAUTION, stroke=INK, strokeWidth=0.5)
        .encode(x=x, y=y, tooltip=tip)
    )
    kinds = len({alarm["title"] for alarm in alarms})
    return spec_of(chart.properties(width="container", height=30 + _BIN * kinds))


def _format(percent: bool) -> str:
    return "~%" if percent else ".3~g"


def _tip(quantity: str, title: str, percent: bool) -> list[alt.Tooltip]:
    digits = ".2%" if percent else ".4g"
    return [
        alt.Tooltip("label:N", title="layer"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip(f"{quantity}:Q", title=title, format=digits),
        alt.Tooltip(f"{quantity}_stderr:Q", title="±", format=digits),
    ]
