"""The pictures of a report as Vega-Lite specifications, by name.

The data are not in them: a specification names the page's data set (`layers`, `spectra`, `one`, …), so that each
number is in the page once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from ketwork.networks.measures import KEPT
from ketwork.report.chart_style import (
    AXIS,
    FIRST,
    HEIGHT,
    INK,
    LINE,
    QUIET,
    SECOND,
    SHORT,
    Spec,
    by_depth,
    spec_of,
)
from ketwork.report.depth_charts import BESIDE, Quantity, coloured, end, pictures_of, series_of
from ketwork.report.views import View

MOST_DEAD = 12
"""How many layers the picture of dead neurons shows."""

_DEEPEST = 0.5  # of a cell's colour, so that the count in it keeps a contrast of 4.5, light and dark
_LETTER = 6.2  # pixels, of names beside a matrix


@dataclass(frozen=True)
class Pictures:
    """The specifications of a page's pictures by name, and the names and titles of those in each `group`."""

    specs: dict[str, Spec]
    groups: dict[str, list[tuple[str, str]]]


def study_charts(rows: Sequence[View], classes: int, readings: Sequence[str] = ()) -> Pictures:
    """The pictures of a study's page; those of quantities that no layer has are skipped.

    With two `readings`, the names of this study and of one beside it, the pictures along the depth show both.
    """

    def has(name: str) -> bool:
        return any(row.has(name) for row in rows)

    def both(name: str, title: str, more: dict[str, str]) -> dict[str, str]:
        if len(readings) < 2:
            return {name: title, **more}
        return {name: f"{title}, {readings[0]}", BESIDE + name: f"{title}, {readings[1]}"}

    charts: dict[str, alt.TopLevelMixin] = {}
    along: dict[str, Quantity] = {}
    if has("effective_rank"):
        ranks = both("effective_rank", "effective rank", {"participation_ratio": "participation ratio"})
        along["dimensions"] = Quantity(
            ranks, "dimensions", "rank_share", "effective rank ÷ d", one_percent=True
        )
        charts["spectra"] = _spectra(len(rows))
        charts["neurons"] = _neurons()
        bits = both("entropy", "entropy", {"coherence": "coherence"})
        along["superposition"] = Quantity(bits, "bits", "coherence", "coherence (bits)")
    if has("holevo"):
        bits = both("holevo", "Holevo bits", {"holevo_null": "chance level"})
        along["holevo"] = Quantity(bits, "bits of the label", "holevo", "Holevo bits", "holevo_null")
    if has("linear_balanced") or has("pgm_balanced"):
        scores = both("linear_balanced", "linear probe", {"pgm_balanced": "pretty good measurement"})
        one, title = (
            ("linear_balanced", "linear probe") if has("linear_balanced") else ("pgm_balanced", "measurement")
        )
        along["readout"] = Quantity(
            scores, "balanced accuracy", one, title, "", True, True, 1 / classes if classes else None
        )
    if has("linear_r2"):
        scores, title = both("linear_r2", "linear probe", {}), "R² on held-out samples"
        along["readout"] = Quantity(scores, title, "linear_r2", title)
    if dead := sum(row["dead"].value > 0 for row in rows):
        charts["dead"] = _dead(min(dead, MOST_DEAD))
    specs = {name: spec_of(chart) for name, chart in charts.items()}
    groups = {}
    below = [name for name in along if name != "dimensions"]
    for name, quantity in along.items():
        own = pictures_of(name, quantity, rows, names=name not in below[:-1])
        groups[name] = [(each, title) for each, (title, _) in own.items()]
        specs |= {each: spec for each, (_, spec) in own.items()}
    return Pictures(specs, groups)


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
    axis = alt.Axis(labels=not many, ticks=False, domain=False, labelExpr=SHORT, labelOverlap=True)
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
        color=by_depth(count),
        tooltip=tip,
    )
    rule = alt.Chart(alt.InlineData([{"level": 1 - KEPT}])).mark_rule(strokeDash=[2, 4], color=INK)
    return alt.layer(
        rule.encode(y="level:Q"),
        lines.mark_line(strokeWidth=1.5, opacity=opacity, cursor="pointer"),
        lines.mark_point(filled=True, size=90, opacity=0, cursor="pointer"),
    ).properties(width="container", height=HEIGHT + 10)


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
            f"{name}_{side}": end(f"datum.{name}", sign, f"datum.{name}_stderr", f"datum.{name}_{bound}")
            for name in ("entropy", "coherence")
            for side, sign, bound in (("from", "-", "low"), ("to", "+", "high"))
        }
    )
    tip = [
        alt.Tooltip("label:N", title="layer"),
        alt.Tooltip("coherence_text:N", title="coherence"),
        alt.Tooltip("entropy_text:N", title="entropy"),
    ]
    points = base.mark_point(filled=True, opacity=1, size=50, cursor="pointer", color=FIRST)
    # Both text layers have every point, since a layer without any would have no extent.
    far = base.transform_joinaggregate(far="max(entropy)").transform_calculate(short=SHORT)
    left = far.transform_calculate(name="datum.named && datum.entropy <= 0.7 * datum.far ? datum.short : ''")
    right = far.transform_calculate(name="datum.named && datum.entropy > 0.7 * datum.far ? datum.short : ''")
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
    y = y.axis(labelExpr=SHORT, labelPadding=6, ticks=False, domain=False)
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
    mine = series_of(base, series).transform_filter("datum.value >= 1e-5")
    tip = [alt.Tooltip("rank:Q"), alt.Tooltip("series:N", title="quantity")]
    tip.append(alt.Tooltip("value:Q", format=".3g"))
    mine = mine.encode(x=x, y=y, color=coloured(series), tooltip=tip)
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
    cells = base.mark_rect(fill=FIRST, stroke=LINE, strokeWidth=0.5).encode(
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
        axes.mark_rule(color=LINE).encode(**place, x2="x2:Q", y2="z2:Q"),
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
        others.mark_point(filled=True, color=SECOND, size=50, opacity=1).encode(**place, tooltip=tip),
        beside.mark_text(color=INK, fontSize=11, limit=70).encode(**place, text="label:N"),
        poles.mark_text(color=INK, fontSize=12).encode(**place, text="pole:N"),
    ).properties(width=320, height=320)
