"""The pictures of a report as Vega-Lite specifications, by name.

The data are not in them: a specification names the page's data set (`layers`, `spectra`, `one`, …), so that each
number is in the page once. Colours are the page's CSS variables, so that the pictures follow its theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from ketwork.networks.measures import KEPT
from ketwork.report.views import View

FIRST, _SECOND, QUIET, INK, _LINE = (f"var(--{c})" for c in ("first", "second", "quiet", "ink", "line"))
MOST_DEAD = 12
"""How many layers the picture of dead neurons shows."""

_NAMED_LAYERS = 32  # more layers than this are numbered along the axis
_SHORT = (
    "length(datum.label) > 24 ? '…' + slice(datum.label, -23) : datum.label"  # names differ at their ends
)
HEIGHT = 180
_DEEPEST = 0.5  # of a cell's colour, so that the count in it keeps a contrast of 4.5, light and dark
_LETTER = 6.2  # pixels, of names beside a matrix
AXIS = 44  # the width of every vertical axis, so that pictures below each other line up

Spec = dict[str, Any]


def study_charts(rows: Sequence[View], classes: int) -> dict[str, Spec]:
    """The pictures of a study's page; those of quantities that no layer has are skipped."""

    def has(name: str) -> bool:
        return any(row.has(name) for row in rows)

    dense = len(rows) > _NAMED_LAYERS
    charts: dict[str, alt.TopLevelMixin] = {}
    read = any(map(has, ("linear_balanced", "pgm_balanced", "linear_r2")))
    if has("effective_rank"):
        series = {"effective_rank": "effective rank", "participation_ratio": "participation ratio"}
        charts["dimensions"] = _along_depth(series, "dimensions", dense)
        charts["spectra"] = _spectra(len(rows))
        charts["neurons"] = _neurons()
        known = read or has("holevo")
        series = {"entropy": "entropy", "coherence": "coherence"}
        charts["superposition"] = _along_depth(series, "bits", dense, names=not known)
    if has("holevo"):
        series = {"holevo": "Holevo bits", "holevo_null": "chance level"}
        charts["holevo"] = _along_depth(series, "bits of the label", dense, names=not read)
    if has("linear_balanced") or has("pgm_balanced"):
        series = {"linear_balanced": "linear probe", "pgm_balanced": "pretty good measurement"}
        chance = 1 / classes if classes else None
        charts["readout"] = _along_depth(series, "balanced accuracy", dense, percent=True, level=chance)
    if has("linear_r2"):
        charts["readout"] = _along_depth({"linear_r2": "linear probe"}, "R² on held-out samples", dense)
    if dead := sum(row["dead"].value > 0 for row in rows):
        charts["dead"] = _dead(min(dead, MOST_DEAD))
    return {name: spec_of(chart) for name, chart in charts.items()}


def layer_charts() -> dict[str, Spec]:
    """The pictures of one layer, which the page fills with data sets `one`, `confusion`, `kets`, `states`."""
    charts = {"spectrum": _spectrum(), "confusion": _confusion(), "ball": _ball()}
    return {name: spec_of(chart) for name, chart in charts.items()}


def matrix_side(rows: int, columns: int) -> int:
    """The height of a comparison's picture, in pixels."""
    return min(440, max(160, 28 * max(rows, columns)))


def matrix_width(rows: Sequence[str], columns: int) -> float:
    """The width of a comparison's picture with its names, in pixels."""
    named = 0 if _many(len(rows), columns) else min(24, max(map(len, rows)))
    return matrix_side(len(rows), columns) + 16 + _LETTER * named


def _many(rows: int, columns: int) -> bool:
    """Whether names would run into each other beside a matrix."""
    return max(rows, columns) > 40


def matrix_chart(rows: int, columns: int) -> Spec:
    """The picture of a comparison's matrix, of the page's data set `cells`."""
    base = alt.Chart(alt.NamedData("cells"))
    many = _many(rows, columns)
    axis = alt.Axis(labels=not many, ticks=False, domain=False, labelExpr=_SHORT, labelOverlap=True)
    chart = base.mark_rect().encode(
        x=alt.X("other:O", sort=None, title=None, axis=axis, scale=alt.Scale(padding=0, round=True)),
        y=alt.Y("layer:O", sort=None, title=None, axis=axis, scale=alt.Scale(padding=0, round=True)),
        color=alt.Color(
            "value:Q",
            title=None,
            scale=alt.Scale(scheme="viridis", domain=[0, 1], clamp=True),
            legend=alt.Legend(orient="top", gradientThickness=8, gradientLength=140, values=[0, 0.5, 1]),
        ),
        tooltip=[alt.Tooltip(name, title=title) for name, title in _MATRIX_TIP.items()],
    )
    return spec_of(chart.properties(width="container", height=matrix_side(rows, columns)))


_MATRIX_TIP = {"layer:N": "row", "other:N": "column", "text:N": "value"}


def _along_depth(
    series: dict[str, str],
    title: str,
    dense: bool,
    *,
    percent: bool = False,
    level: float | None = None,
    names: bool = True,
) -> alt.TopLevelMixin:
    """Quantities of the layers in order of execution, with error bars; `level` draws a rule.

    Without `names` the picture stands above another one that names the layers.
    """
    if dense:
        below = "layer, in order of execution" if names else None
        x = alt.X("place:Q", title=below, scale=alt.Scale(nice=False))
        x = x.axis(tickMinStep=1, grid=False, labels=names)
    else:
        x = alt.X("label:N", sort=None, title=None, scale=alt.Scale(type="point", padding=0.4))
        x = x.axis(labelAngle=-40, labelExpr=_SHORT, labelOverlap="greedy", grid=False, labels=names)
    # Accuracies start near chance: from zero on, what tells the layers apart would be squeezed into the top.
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=level is None))
    y = y.axis(format="~%" if percent else "~f", tickCount=4, minExtent=AXIS, maxExtent=AXIS, titlePadding=8)
    lines = _series(alt.Chart(alt.NamedData("layers")), series).transform_calculate(
        low=_end("datum[datum.field]", "-", "datum[datum.field + '_stderr']", "datum[datum.field + '_low']"),
        high=_end(
            "datum[datum.field]", "+", "datum[datum.field + '_stderr']", "datum[datum.field + '_high']"
        ),
        text="datum[datum.field + '_text']",
    )
    tip = [alt.Tooltip(name, title=title) for name, title in _DEPTH_TIP.items()]
    colour = _coloured(series)
    layers: list[alt.Chart] = [
        lines.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour),
        lines.mark_rule(strokeWidth=1.5).encode(
            x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour
        ),
        lines.mark_point(filled=True, opacity=1, size=16 if dense else 44, cursor="pointer").encode(
            x=x, y=y, color=colour, tooltip=tip
        ),
    ]
    if level is not None:
        rule = alt.Chart(alt.InlineData([{"level": level}])).mark_rule(strokeDash=[2, 4], color=QUIET)
        layers.insert(0, rule.encode(y=alt.Y("level:Q", title=title)))
    return alt.layer(*layers).properties(width="container", height=HEIGHT)


def _end(value: str, sign: str, stderr: str, bound: str) -> str:
    """Where the bar of a value ends: at its standard error, or its bound where that is farther."""
    farther = "min" if sign == "-" else "max"
    return f"{farther}({value} {sign} ({stderr} || 0), isValid({bound}) ? {bound} : {value})"


_DEPTH_TIP = {"label:N": "layer", "series:N": "quantity", "text:N": "value"}


def _series(base: alt.Chart, series: dict[str, str]) -> alt.Chart:
    """A row for each layer and quantity: `field`, what it is called in `series`, and its `value`."""
    titles = ", ".join(f"{name}: '{title}'" for name, title in series.items())
    return (
        base.transform_fold(list(series), as_=["field", "value"])
        .transform_filter("isValid(datum.value)")
        .transform_calculate(series=f"({{{titles}}})[datum.field]")
    )


def _coloured(series: dict[str, str]) -> alt.Color:
    scale = alt.Scale(domain=list(series.values()), range=[FIRST, _SECOND][: len(series)])
    return alt.Color("series:N", scale=scale, legend=alt.Legend(title=None, orient="top", offset=4))


def _spectra(count: int) -> alt.TopLevelMixin:
    """Discarded variance against rank, a line a layer, from the first (quiet) to the last (strong)."""
    base = alt.Chart(alt.NamedData("spectra"))
    opacity = 0.85 if count <= 12 else 0.5 if count <= 60 else 0.35
    x = alt.X("rank:Q", title="rank kept", scale=alt.Scale(type="log", nice=False))
    x = x.axis(format="~s", tickCount=5, grid=False)
    y = alt.Y("discarded:Q", title="discarded variance")
    y = y.scale(type="log", domain=[1e-4, 1], clamp=True)
    y = y.axis(format="~%", values=[1e-4, 1e-3, 1e-2, 1e-1, 1], minExtent=AXIS, maxExtent=AXIS)
    tip = [
        alt.Tooltip("label:N", title="layer"),
        alt.Tooltip("rank:Q", title="rank kept"),
        alt.Tooltip("discarded:Q", title="discarded variance", format=".3%"),
    ]
    lines = base.transform_filter("datum.discarded >= 1e-4").encode(
        x=x,
        y=y,
        detail="id:N",
        color=by_depth(),
        tooltip=tip,
    )
    rule = alt.Chart(alt.InlineData([{"level": 1 - KEPT}])).mark_rule(strokeDash=[2, 4], color=INK)
    return alt.layer(
        rule.encode(y="level:Q"),
        lines.mark_line(strokeWidth=1.5, opacity=opacity, cursor="pointer"),
        lines.mark_point(filled=True, size=90, opacity=0, cursor="pointer"),
    ).properties(width="container", height=HEIGHT + 10)


def by_depth() -> alt.Color:
    """The colour of a layer's line by its place, from the first (gold) to the last (blue)."""
    scale = alt.Scale(range=["#d9a441", "#a23b72", "#2d4f9e"], interpolate="lab")
    return alt.Color("place:Q", scale=scale, legend=None)


def _neurons() -> alt.TopLevelMixin:
    """Coherence against entropy: layers near the floor have single neurons as their eigenstates."""
    base = alt.Chart(alt.NamedData("layers")).transform_filter(
        "isValid(datum.entropy) && isValid(datum.coherence)"
    )
    across, upwards = "entropy (bits)", "coherence (bits)"
    x = alt.X("entropy:Q", title=across, scale=alt.Scale(zero=True))
    y = alt.Y("coherence:Q", title=upwards, scale=alt.Scale(zero=True))
    x = x.axis(tickCount=5, format="~f")
    y = y.axis(tickCount=5, format="~f", minExtent=AXIS, maxExtent=AXIS)
    spread = base.transform_calculate(
        **{
            f"{name}_{end}": _end(f"datum.{name}", sign, f"datum.{name}_stderr", f"datum.{name}_{bound}")
            for name in ("entropy", "coherence")
            for end, sign, bound in (("from", "-", "low"), ("to", "+", "high"))
        }
    )
    tip = [
        alt.Tooltip("label:N", title="layer"),
        alt.Tooltip("coherence_text:N", title="coherence"),
        alt.Tooltip("entropy_text:N", title="entropy"),
    ]
    points = base.mark_point(filled=True, opacity=1, size=50, cursor="pointer", color=FIRST)
    # Both text layers have every point, since a layer without any would have no extent.
    far = base.transform_joinaggregate(far="max(entropy)")
    left = far.transform_calculate(name="datum.named && datum.entropy <= 0.7 * datum.far ? datum.label : ''")
    right = far.transform_calculate(name="datum.named && datum.entropy > 0.7 * datum.far ? datum.label : ''")
    texts = left.mark_text(align="left", dx=6, dy=14), right.mark_text(align="right", dx=-6, dy=14)
    place = {"x": x, "y": y}
    return alt.layer(
        spread.mark_rule(color=FIRST).encode(x=alt.X("entropy_from:Q", title=across), x2="entropy_to:Q", y=y),
        spread.mark_rule(color=FIRST).encode(
            x=x, y=alt.Y("coherence_from:Q", title=upwards), y2="coherence_to:Q"
        ),
        points.encode(**place, tooltip=tip),
        *(text.encode(**place, text="name:N", color=alt.value(INK)) for text in texts),
    ).properties(width="container", height=HEIGHT + 10)


def _dead(count: int) -> alt.TopLevelMixin:
    base = alt.Chart(alt.NamedData("layers")).transform_filter("datum.dead_visible")
    y = alt.Y("label:N", sort=alt.EncodingSortField("dead", order="descending"), title=None)
    y = y.axis(labelExpr=_SHORT, labelPadding=6, ticks=False, domain=False)
    x = alt.X("dead:Q", title="dead neurons", axis=alt.Axis(format="~%", tickCount=4))
    tip = [alt.Tooltip("label:N", title="layer"), alt.Tooltip("dead_text:N", title="dead")]
    bars = base.mark_bar(color=FIRST, height=10, cursor="pointer").encode(x=x, y=y, tooltip=tip)
    return bars.properties(width="container", height=22 * count + 4)


def _spectrum() -> alt.TopLevelMixin:
    """Eigenvalues and discarded variance of one layer."""
    base = alt.Chart(alt.NamedData("one"))
    x = alt.X("rank:Q", title="rank", scale=alt.Scale(type="log", nice=False))
    x = x.axis(format="~s", tickCount=5, grid=False)
    y = alt.Y("value:Q", title="share of variance", scale=alt.Scale(type="log", domain=[1e-5, 1], clamp=True))
    y = y.axis(format="~%", values=[10.0**-k for k in range(6)], minExtent=AXIS, maxExtent=AXIS)
    series = {"eigenvalue": "eigenvalue λ", "discarded": "discarded variance"}
    mine = _series(base, series).transform_filter("datum.value >= 1e-5")
    tip = [alt.Tooltip("rank:Q"), alt.Tooltip("series:N", title="quantity")]
    tip.append(alt.Tooltip("value:Q", format=".3g"))
    mine = mine.encode(x=x, y=y, color=_coloured(series), tooltip=tip)
    return alt.layer(
        mine.mark_line(strokeWidth=1.5), mine.mark_point(filled=True, size=22, opacity=1)
    ).properties(width="container", height=HEIGHT)


def _confusion() -> alt.TopLevelMixin:
    """Shares of each label's held-out samples; the number in a cell is a count."""
    base = alt.Chart(alt.NamedData("confusion"))
    axis = alt.Axis(
        ticks=False, domain=False, labelAngle=0, labelLimit=90, labelOverlap=True, labelPadding=6, grid=False
    )
    place = {
        "x": alt.X("read:N", sort=None, title="predicted", axis=axis, scale=alt.Scale(padding=0)),
        "y": alt.Y("label:N", sort=None, title="label", axis=axis, scale=alt.Scale(padding=0)),
    }
    tip = [alt.Tooltip("label:N"), alt.Tooltip("read:N", title="predicted"), alt.Tooltip("count:Q")]
    tip.append(alt.Tooltip("share:Q", title="of the label", format=".1%"))
    cells = base.mark_rect(fill=FIRST, stroke=_LINE, strokeWidth=0.5).encode(
        **place,
        fillOpacity=alt.FillOpacity(
            "share:Q", scale=alt.Scale(domain=[0, 1], range=[0, _DEEPEST]), legend=None
        ),
        tooltip=tip,
    )
    text = base.transform_filter("datum.count > 0 && datum.small").mark_text(color=INK, fontSize=11)
    return alt.layer(cells, text.encode(**place, text="count:Q")).properties(width="container")


def _ball() -> alt.TopLevelMixin:
    """The plane y = 0 of the Bloch ball: the sphere's outline, the state, single kets and labels' states."""
    ring = alt.Chart(alt.sequence(0, 65, as_="i")).transform_calculate(
        x="sin(datum.i * PI / 32)", z="cos(datum.i * PI / 32)"
    )
    bounds = alt.Scale(domain=[-1.5, 1.5], nice=False)
    place = {
        "x": alt.X("x:Q", scale=bounds, axis=None),
        "y": alt.Y("z:Q", scale=bounds, axis=None),
    }
    tip = [alt.Tooltip("name:N", title="state")]
    tip += [alt.Tooltip(f"{axis}:Q", format=".3f") for axis in ("x", "y", "z")]
    states, kets = alt.Chart(alt.NamedData("states")), alt.Chart(alt.NamedData("kets"))
    poles = alt.Chart(
        alt.InlineData([{"x": 0, "z": 1.4, "pole": "|1⟩ leading"}, {"x": 0, "z": -1.4, "pole": "|2⟩ second"}])
    )
    axes = alt.Chart(
        alt.InlineData([{"x": 0, "z": -1, "x2": 0, "z2": 1}, {"x": -1, "z": 0, "x2": 1, "z2": 0}])
    )
    own = states.transform_filter("datum.own")
    others = states.transform_filter("!datum.own")
    out = "(1 + 0.14 / max(0.3, sqrt(datum.x * datum.x + datum.z * datum.z)))"
    beside = others.transform_calculate(x=f"datum.x * {out}", z=f"datum.z * {out}")
    return alt.layer(
        axes.mark_rule(color=_LINE).encode(**place, x2="x2:Q", y2="z2:Q"),
        ring.mark_line(color=QUIET, strokeWidth=1).encode(**place, order="i:Q"),
        kets.mark_point(filled=True, color=QUIET, size=16, opacity=0.55).encode(**place, tooltip=tip),
        own.transform_calculate(zero="0")
        .mark_rule(color=FIRST, strokeWidth=2.5)
        .encode(
            x=alt.X("x:Q", scale=bounds, axis=None),
            y=alt.Y("z:Q", scale=bounds, axis=None),
            x2="zero:Q",
            y2="zero:Q",
        ),
        own.mark_point(filled=True, color=FIRST, size=80, opacity=1).encode(**place, tooltip=tip),
        others.mark_point(filled=True, color=_SECOND, size=50, opacity=1).encode(**place, tooltip=tip),
        beside.mark_text(color=INK, fontSize=11, limit=70).encode(**place, text="label:N"),
        poles.mark_text(color=INK, fontSize=12).encode(**place, text="pole:N"),
    ).properties(width=320, height=320)


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
            gridColor=_LINE,
            domainColor=_LINE,
            tickColor=_LINE,
        )
        .configure_legend(
            labelColor=INK, titleColor=QUIET, titleFontWeight="normal", labelFontSize=12, symbolSize=60
        )
    )
    spec: Spec = styled.to_dict()
    spec.pop("$schema")
    return spec
