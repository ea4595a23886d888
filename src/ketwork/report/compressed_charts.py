"""The picture of a compressed network as a Vega-Lite specification, of the page's data set `points`."""

from __future__ import annotations

import altair as alt

from ketwork.report.chart_style import FIRST, QUIET, SHORT, Spec, spec_of


def kept_chart(count: int) -> Spec:
    """A bar for each layer, the share of its parameters that it keeps; those that keep least are at the top."""
    base = alt.Chart(alt.NamedData("points"))
    y = alt.Y("label:N", sort=alt.EncodingSortField("kept"), title=None)
    y = y.axis(labelExpr=SHORT, labelPadding=6, ticks=False, domain=False)
    x = alt.X("kept:Q", title="share of its parameters kept", axis=alt.Axis(format="~%", tickCount=4))
    tip = [
        alt.Tooltip("label:N", title="layer"),
        alt.Tooltip("kept:Q", title="kept", format=".1%"),
        alt.Tooltip("text:N", title="parameters"),
    ]
    bars = base.mark_bar(color=FIRST, height=10).encode(x=x, y=y, tooltip=tip)
    everything = alt.Chart(alt.InlineData([{"all": 1}])).mark_rule(strokeDash=[2, 4], color=QUIET)
    chart = alt.layer(bars, everything.encode(x="all:Q"))
    return spec_of(chart.properties(width="container", height=22 * count + 4))
