"""What all pictures look like: their colours, sizes and fonts, as Vega-Lite has them.

Colours are the page's CSS variables, so that pictures follow its theme.
"""

from __future__ import annotations

from typing import Any

import altair as alt

FIRST, SECOND, QUIET, INK, LINE = (f"var(--{c})" for c in ("first", "second", "quiet", "ink", "line"))
HEIGHT = 180
AXIS = 44  # the width of every vertical axis, so that pictures below each other line up

SHORT = "length(datum.label) > 24 ? slice(datum.label, 0, 8) + '…' + slice(datum.label, -15) : datum.label"
"""An axis' label whose middle is elided."""

Spec = dict[str, Any]


def by_depth(layers: int) -> alt.Color:
    """The colour of a layer's line by its place, first gold, last blue; each has a contrast of 3 on black and white."""
    scale = alt.Scale(range=["#b8801a", "#b0477f", "#4a7fd6"], interpolate="lab", domain=[1, max(2, layers)])
    legend = alt.Legend(
        title="layer",
        type="gradient",
        orient="top",
        titleOrient="left",
        gradientThickness=8,
        gradientLength=140,
        values=[1, layers],
        labelExpr="datum.value === 1 ? 'first' : 'last'",
    )
    return alt.Color("place:Q", scale=scale, legend=legend if layers > 1 else None)


def spec_of(chart: Any) -> Spec:
    """The chart as plain data, with the page's look."""
    styled = (
        chart.configure(
            background="transparent",
            font="system-ui, -apple-system, Segoe UI, Helvetica Neue, Arial, sans-serif",
            padding=2,
        )
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=QUIET,
            titleColor=QUIET,
            titleFontWeight="normal",
            titleFontSize=12,
            labelFontSize=11,
            gridColor=LINE,
            domainColor=LINE,
            tickColor=LINE,
        )
        .configure_legend(
            labelColor=INK,
            titleColor=QUIET,
            titleFontWeight="normal",
            labelFontSize=12,
            symbolSize=60,
            symbolBaseFillColor=INK,
            symbolBaseStrokeColor=INK,
        )
    )
    spec: Spec = styled.to_dict()
    spec.pop("$schema")
    return spec
