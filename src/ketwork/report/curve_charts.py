"""The picture of a collapse curve as a Vega-Lite specification, of the page's data set `points`."""

from __future__ import annotations

import altair as alt

from ketwork.report.chart_style import AXIS, HEIGHT, INK, Spec, by_depth, spec_of

_ROUNDING = 1e-9  # of a KL, from predictions in single precision


def curve_chart(label: str, limit: float, layers: int, *, log: bool) -> Spec:
    """The metric against rank, a line a layer with error bars, a ring at its smallest rank, a rule at the limit.

    With `log` the metric is drawn by its logarithm, and points where it is rounding alone are not drawn.
    """
    base = alt.Chart(alt.NamedData("points"))
    if log:
        base = base.transform_filter(f"datum.value > {_ROUNDING}")
    x = alt.X("rank:Q", title="rank kept", scale=alt.Scale(type="log", base=2, nice=False))
    x = x.axis(format="~s", tickCount=6, grid=False)
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    y = alt.Y("value:Q", title=label, scale=scale)
    y = y.axis(format="~e" if log else "~g", tickCount=5, minExtent=AXIS, maxExtent=AXIS)
    tip = [alt.Tooltip("label:N", title="layer"), alt.Tooltip("rank:Q", title="rank kept")]
    tip += [
        alt.Tooltip("text:N", title=label),
        alt.Tooltip("weight:Q", title="explained variance", format=".2%"),
    ]
    lines = base.encode(x=x, y=y, detail="id:N", color=by_depth(layers), tooltip=tip)
    rule = alt.Chart(alt.InlineData([{"level": limit}])).mark_rule(strokeDash=[2, 4], color=INK)
    return spec_of(
        alt.layer(
            rule.encode(y=alt.Y("level:Q", title=label)),
            lines.mark_line(strokeWidth=1.5),
            base.encode(x=x, y=alt.Y("low:Q", title=label), y2="high:Q", color=by_depth(layers)).mark_rule(
                strokeWidth=1
            ),
            lines.mark_point(filled=True, size=26, opacity=1),
            lines.transform_filter("datum.smallest").mark_point(filled=False, size=110, opacity=1),
        ).properties(width="container", height=HEIGHT + 60)
    )
