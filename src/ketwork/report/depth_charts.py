"""The pictures along the depth as Vega-Lite specifications: one a quantity, or one a part of a transformer.

Of a transformer, layers in order of execution would draw a saw-tooth: the residual stream, attention and the MLP differ
from each other in every block. Each has a picture of its own there, over the blocks, with a line for each role.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from ketwork.networks.activations import PARTS
from ketwork.report.chart_style import AXIS, FIRST, HEIGHT, QUIET, SECOND, SHORT, Spec, spec_of
from ketwork.report.views import View

BESIDE = "beside_"
"""What stands before a quantity's name where it is that of the other study."""

NAMED_LAYERS = 32  # more layers than this are numbered along the axis
_NAMED_BLOCKS = 40
_TURNED = -12  # pixels that the boxes around turned names may overlap, whose letters do not
_ROLES = 8  # colours, which CSS names
_TIP = {"label:N": "layer", "series:N": "quantity", "text:N": "value"}


@dataclass(frozen=True)
class Quantity:
    """What a picture shows: `series` by name over the depth; of a transformer's parts `one` alone, with its `null`."""

    series: Mapping[str, str]
    title: str
    one: str
    one_title: str
    null: str = ""
    percent: bool = False
    one_percent: bool = False
    level: float | None = None


def pictures_of(
    name: str, quantity: Quantity, rows: Sequence[View], *, names: bool
) -> dict[str, tuple[str, Spec]]:
    """The title and specification of each picture of a quantity, by name: "name", or "name-0", "name-1" … by part.

    Without `names` a picture stands above another one that names the layers.
    """
    parts = [
        part for part in PARTS if sum(row.part is not None and row.part.name == part for row in rows) > 1
    ]
    if not parts:
        dense = len(rows) > NAMED_LAYERS
        return {name: ("", spec_of(_along_depth(quantity, dense, names)))}
    pictures: dict[str, tuple[str, Spec]] = {}
    for i, part in enumerate(parts):
        own = [row.part for row in rows if row.part is not None and row.part.name == part]
        roles = [*dict.fromkeys(each.role for each in own)]
        blocks = max(each.block for each in own) + 1
        pictures[f"{name}-{i}"] = (part, spec_of(_over_blocks(quantity, part, roles, blocks)))
    return pictures


def _along_depth(quantity: Quantity, dense: bool, names: bool) -> alt.TopLevelMixin:
    """Quantities of the layers in order of execution, with error bars; their `level` is a rule."""
    x = layer_axis(dense, names=names)
    colour = coloured(quantity.series)
    lines = _with_ends(series_of(alt.Chart(alt.NamedData("layers")), quantity.series))
    marks = marks_of(lines, x, quantity.title, colour, dense, quantity.percent, quantity.level)
    return alt.layer(*marks).properties(width="container", height=HEIGHT)


def layer_axis(
    dense: bool, *, names: bool = True, domain: Sequence[str] | None = None, band: bool = False
) -> alt.X:
    """The axis of layers by name, all of `domain` where given; those of more than `NAMED_LAYERS` by number."""
    if dense:
        below = "layer, in order of execution" if names else None
        x = alt.X("place:Q", title=below, scale=alt.Scale(nice=False))
        return x.axis(tickMinStep=1, grid=False, labels=names)
    scale = alt.Scale(type="point", padding=0.4)
    if band:  # whose middles are where the points are
        scale = alt.Scale(type="band", paddingInner=0.4, paddingOuter=0.1)
    if domain is not None:
        scale.domain = list(domain)
    x = alt.X("label:N", sort=None, title=None, scale=scale)
    return x.axis(
        labelAngle=-40,
        labelExpr=SHORT,
        labelOverlap="greedy",
        labelSeparation=_TURNED,
        grid=False,
        labels=names,
    )


def _over_blocks(quantity: Quantity, part: str, roles: Sequence[str], blocks: int) -> alt.TopLevelMixin:
    """One quantity of one part, over the blocks, a line for each role; dotted what it is by chance."""
    kind = "O" if blocks <= _NAMED_BLOCKS else "Q"
    x = alt.X(f"block:{kind}", title="block").axis(grid=False, labelAngle=0, tickMinStep=1, labelOverlap=True)
    scale = {role: _role(role) for role in roles}
    colour = alt.Color(
        "role_title:N",
        scale=alt.Scale(
            domain=[*scale.values()], range=[f"var(--role-{i % _ROLES})" for i in range(len(roles))]
        ),
        legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=220),
    )
    base = alt.Chart(alt.NamedData("layers")).transform_filter(f"datum.part === {json.dumps(part)}")
    base = base.transform_calculate(role_title=f"({json.dumps(scale)})[datum.role]")
    lines = _with_ends(series_of(base, {quantity.one: quantity.one_title}))
    marks = marks_of(lines, x, quantity.one_title, colour, False, quantity.one_percent, quantity.level)
    both = any(name.startswith(BESIDE) for name in quantity.series)
    for other in (BESIDE + quantity.one if both else "", "" if both else quantity.null):
        if other:
            dashed = series_of(base, {other: f"{quantity.one_title}, dashed"})
            y = alt.Y("value:Q", title=quantity.one_title)
            dash = dashed.mark_line(strokeWidth=1.5, strokeDash=[4, 3])
            marks.append(dash.encode(x=x, y=y, color=colour))
    return alt.layer(*marks).properties(width="container", height=HEIGHT)


def _role(role: str) -> str:
    """What a line is called: the layer's name inside its block."""
    return {"": "after the block", "input": "before the block"}.get(role, role)


def marks_of(
    lines: alt.Chart,
    x: alt.X,
    title: str,
    colour: alt.Color,
    dense: bool,
    percent: bool = False,
    level: float | None = None,
    zero: bool = True,
) -> list[alt.Chart]:
    """Lines, error bars from `low` to `high`, points, and a rule at the level; from `zero` on without one."""
    # Accuracies start near chance: from zero on, what tells the layers apart would be squeezed into the top.
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=zero and level is None))
    y = y.axis(format="~%" if percent else "~f", tickCount=4, minExtent=AXIS, maxExtent=AXIS, titlePadding=8)
    points = lines.mark_point(filled=True, opacity=1, size=16 if dense else 44, cursor="pointer")
    marks: list[alt.Chart] = [
        lines.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour),
        lines.mark_rule(strokeWidth=1.5).encode(
            x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour
        ),
        points.encode(x=x, y=y, color=colour, tooltip=tip()),
    ]
    if level is not None:
        rule = alt.Chart(alt.InlineData([{"level": level}])).mark_rule(strokeDash=[2, 4], color=QUIET)
        marks.insert(0, rule.encode(y=alt.Y("level:Q", title=title)))
    return marks


def tip() -> list[alt.Tooltip]:
    """What a point says: its layer, its quantity and its value in words."""
    return [alt.Tooltip(name, title=words) for name, words in _TIP.items()]


def _with_ends(lines: alt.Chart) -> alt.Chart:
    """Rows of `series_of` with the ends of their error bars, and their values in words."""
    stderr, low, high = (f"datum[datum.field + '_{name}']" for name in ("stderr", "low", "high"))
    return lines.transform_calculate(
        low=end("datum[datum.field]", "-", stderr, low),
        high=end("datum[datum.field]", "+", stderr, high),
        text="datum[datum.field + '_text']",
    )


def end(value: str, sign: str, stderr: str, bound: str) -> str:
    """Where the bar of a value ends: at its standard error, or its bound where that is farther."""
    farther = "min" if sign == "-" else "max"
    return f"{farther}({value} {sign} ({stderr} || 0), isValid({bound}) ? {bound} : {value})"


def series_of(base: alt.Chart, series: Mapping[str, str]) -> alt.Chart:
    """A row for each layer and quantity: `field`, what it is called in `series`, and its `value`."""
    return (
        base.transform_fold(list(series), as_=["field", "value"])
        .transform_filter("isValid(datum.value)")
        .transform_calculate(series=f"({json.dumps(dict(series))})[datum.field]")
    )


def coloured(series: Mapping[str, str]) -> alt.Color:
    """The colour of a line by its series."""
    scale = alt.Scale(domain=list(series.values()), range=[FIRST, SECOND, QUIET][: len(series)])
    return alt.Color("series:N", scale=scale, legend=alt.Legend(title=None, orient="top", offset=4))
