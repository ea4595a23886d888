"""What changed between two models: the layers that both have by name, as sentence, table and pictures over depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.text import Text

from ketwork.networks.comparison import Comparison, WeightChange
from ketwork.networks.measures import PAIR_MEASURES
from ketwork.quantum import Estimate
from ketwork.report import page_tables, terminal_table
from ketwork.report.words import dimmed, folded, plus_minus, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAME = 0.9995
"""Layers at least so alike print as 1.000."""

_MOST = 3
_OTHERS = 4  # further modules whose weights changed that are named
_PRINTED = {"cka": 1, "bures": 4, "bures_null": 7, "r2": 5}
"""The measures in the terminal, and on the page, by how long they stay as it gets narrower."""

_DRAWN = ("cka", "bures", "r2")

TITLES = {"weight_change": "‖ΔW‖/‖W‖", "weight_rank": "rank ΔW", "weight_effective_rank": "eff. rank"}
DEFINITIONS = {
    "weight_change": "‖ΔW‖/‖W‖: the norm of the change of all weights of a layer, the modules inside it included, over "
    "the norm of these weights before.",
    "weight_rank": "The numerical rank of ΔW of the layer's matrix that changed most: how many singular values exceed "
    "what rounding makes. r for a LoRA adapter of rank r.",
    "weight_effective_rank": "2^H of the shares σ²/Σσ² of the singular values of the same ΔW: how many directions the "
    "change has, each counted by its weight.",
}


@dataclass(frozen=True)
class WhatChanged:
    """The layers of one name, the most changed first (`most`, three at most, those that changed alone), and weights.

    `least` is the layer that changed least, `start` the first of all that changed, by depth, `themselves` how many of
    the `shared` layers match best themselves. `moved` counts the weights that changed among `weighed` that can be
    compared, `relative` is ‖ΔW‖/‖W‖ of these, `heaviest` the innermost layer of the largest weight change, `others` the
    further modules whose own weights changed with their ‖ΔW‖/‖W‖, and `reasons` why layers have none.
    """

    frame: pd.DataFrame
    measure: str
    most: tuple[tuple[str, Estimate], ...]
    least: tuple[str, Estimate]
    start: str | None
    shared: int
    themselves: int
    moved: int
    weighed: int
    relative: float
    heaviest: pd.Series | None
    others: tuple[tuple[str, float], ...]
    reasons: dict[str, list[str]]
    before: str

    @property
    def title(self) -> str:
        """What the measure is called."""
        return PAIR_MEASURES[self.measure].title

    @property
    def rank(self) -> str:
        """The rank of the change of the heaviest layer, in words; "" where it has none."""
        row = self.heaviest
        if row is None or pd.isna(row["weight"]):
            return ""
        return f"rank {row['weight_rank']}, effective rank {row['weight_effective_rank']:.1f}, in {row['weight']}"


def what_changed(comparison: Comparison) -> WhatChanged | None:
    """What changed; None of a model with itself, and where no layers of one name have a value."""
    if comparison.itself:
        return None
    frame, measure = comparison.changes(), comparison.measures[0]
    ordered = comparison.changes(by=measure).dropna(subset=[measure])
    if ordered.empty:
        return None
    stderrs = ordered.get(f"{measure}_stderr", pd.Series(math.nan, ordered.index))
    values = [
        (str(name), Estimate(value, stderr))
        for name, value, stderr in zip(ordered.index, ordered[measure], stderrs, strict=True)
    ]
    best = comparison.best_match(measure)["match"].to_dict()
    weighed = [each for each in comparison.weights if each.reason is None]
    heavy = frame["weight_change"].dropna()
    most = heavy[heavy == heavy.max()]  # the innermost of layers inside each other that tie
    heaviest = frame.loc[max(most.index, key=len)] if len(most) and heavy.max() > 0 else None
    changed = {name for name, value in values if value.value < _SAME}
    reasons: dict[str, list[str]] = {}
    for name, reason in frame["reason"].dropna().items():
        if reason != "it has no weights of its own":
            reasons.setdefault(str(reason), []).append(str(name))
    return WhatChanged(
        frame,
        measure,
        tuple((name, value) for name, value in values[:_MOST] if value.value < _SAME),
        values[-1],
        next((str(name) for name in frame.index if name in changed), None),
        len(values),
        sum(best.get(name) == name for name, _ in values),
        sum(bool(each.change) for each in weighed),
        len(weighed),
        _relative(weighed),
        heaviest,
        _others(weighed, heaviest),
        reasons,
        str(comparison.settings.get(comparison.settings.get("before", "model"), "")),
    )


def _others(weights: Sequence[WeightChange], heaviest: pd.Series | None) -> tuple[tuple[str, float], ...]:
    """The modules but that of the heaviest change whose own weights changed, and by how much, the most first."""
    named = set() if heaviest is None else {heaviest.name, str(heaviest["weight"]).rpartition(".")[0]}
    own: dict[str, list[WeightChange]] = {}
    for each in weights:
        own.setdefault(each.name.rpartition(".")[0], []).append(each)
    changes = [(name, _relative(each)) for name, each in own.items() if name not in named]
    return tuple(sorted((each for each in changes if each[1] > 0), key=lambda each: -each[1]))


def sentences(what: WhatChanged) -> list[str]:
    """What changed in words, the three most changed layers first, and their weights."""
    if not what.most:
        words = [f"All {what.shared} layers of the same name are alike ({what.title} 1.000)."]
    else:
        (first, value), *more = what.most
        then = " and ".join(f"{name} ({with_error(each)})" for name, each in more)
        words = [
            f"Of {what.shared} layers of the same name, {first} differs most ({what.title} {with_error(value)})"
            + (f", then {then}" if then else "")
            + (
                f"; {what.least[0]} least ({with_error(what.least[1])})"
                if what.shared > len(what.most)
                else ""
            )
            + (f"; the first that differs is {what.start}" if what.start else "")
            + f". For {what.themselves} of them the best match is the layer of the same name."
        ]
    if what.weighed and not what.moved:
        words.append(f"None of {what.weighed} weights changed.")
    elif what.weighed:
        words.append(
            f"{what.moved} of {what.weighed} weights changed, ‖ΔW‖/‖W‖ = {share(what.relative)} in all"
            + (
                ""
                if what.heaviest is None
                else f"; most in {what.heaviest.name} ({share(what.heaviest['weight_change'])}"
                + (f": {what.rank}" if what.rank else "")
                + ")"
            )
            + "".join(f", {name} ({share(value)})" for name, value in what.others[:_OTHERS])
            + (f" and {len(what.others) - _OTHERS} more" if len(what.others) > _OTHERS else "")
            + "."
        )
    for reason, names in what.reasons.items():
        some = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        words.append(f"No weight change (–) of {some}: {reason}.")
    return words


def share(value: float) -> str:
    """A relative change in words, – where there is none.

    >>> share(0.0213), share(0.0), share(3.2e-06), share(float("nan"))
    ('2.13 %', '0 %', '0.00032 %', '–')
    """
    return "–" if math.isnan(value) else f"{100 * value:.3g} %"


def changes_columns(comparison: Comparison, what: WhatChanged, width: int) -> list[terminal_table.Column]:
    """The columns of the terminal's table, one row a layer, over depth."""
    columns = []
    for measure in comparison.matrices:
        if measure in _PRINTED or measure == what.measure:
            cells = [dimmed(cell) for cell in plus_minus(_estimates(what.frame, measure))]
            columns.append(
                terminal_table.Column(PAIR_MEASURES[measure].title, cells, _PRINTED.get(measure, 1))
            )
    weights = [
        ("‖ΔW‖/‖W‖", [share(value) for value in what.frame["weight_change"]], 2),
        ("rank ΔW", [_count(value) for value in what.frame["weight_rank"]], 3),
        ("eff. rank", [_decimal(value) for value in what.frame["weight_effective_rank"]], 6),
    ]
    if what.weighed:
        columns += [
            terminal_table.Column(head, [Text(cell) for cell in cells], rank) for head, cells, rank in weights
        ]
    if what.themselves < what.shared:
        best = comparison.best_match(what.measure)["match"]
        names = [Text(folded(str(best.get(name, "–")), max(12, width // 4))) for name in what.frame.index]
        columns.append(terminal_table.Column("best match", names, 8, words=True))
    return columns


def changes_table(comparison: Comparison, what: WhatChanged) -> page_tables.Table:
    """The page's table, one row a layer, over depth."""
    frame, best = what.frame, comparison.best_match(what.measure)["match"]
    columns = [page_tables.Column("place", "#"), page_tables.Column("layer", "layer", words=True)]
    names = [str(name) for name in frame.index]
    cells = [
        [page_tables.Cell(str(i + 1), i + 1) for i in range(len(names))],
        [page_tables.Cell(name, name, words=True, head=True, place=i) for i, name in enumerate(names)],
    ]

    def add(measures: Sequence[str]) -> None:
        for measure in measures:
            rank = 0 if measure == what.measure else _PRINTED.get(measure, 10)
            columns.append(page_tables.Column(measure, PAIR_MEASURES[measure].title, rank=rank))
            cells.append(page_tables.estimate_cells(_estimates(frame, measure)))

    first = [measure for measure in comparison.matrices if measure in (what.measure, *_DRAWN)]
    add(first)
    if what.weighed:
        columns += [
            page_tables.Column("weight_change", "‖ΔW‖/‖W‖", "%", rank=2),
            page_tables.Column("weight_rank", "rank of ΔW", rank=3),
            page_tables.Column("weight_effective_rank", "effective rank of ΔW", rank=6),
            page_tables.Column("weight", "of the weight", words=True, rank=9),
        ]
        shares = [share(value).removesuffix(" %") for value in frame["weight_change"]]
        cells += [
            [_cell(text, value) for text, value in zip(shares, frame["weight_change"], strict=True)],
            [_cell(_count(value), value) for value in frame["weight_rank"]],
            [_cell(_decimal(value), value) for value in frame["weight_effective_rank"]],
            [page_tables.Cell(name or "–", name, words=True) for name in frame["weight"].fillna("")],
        ]
    columns.append(page_tables.Column("match", "best match", words=True, rank=8))
    matches = [str(best.get(name, "–")) for name in names]
    cells.append([page_tables.Cell(match, match, words=True) for match in matches])
    add([measure for measure in comparison.matrices if measure not in first])
    return page_tables.Table(tuple(columns), tuple(zip(*cells, strict=True)))


def changes_points(what: WhatChanged) -> list[dict[str, Any]]:
    """The layers' numbers for the picture over depth."""
    points = []
    for place, (name, row) in enumerate(what.frame.iterrows()):
        for measure in [m for m in _DRAWN if m in what.frame]:
            estimate = Estimate(row[measure], row.get(f"{measure}_stderr", math.nan))
            if math.isfinite(estimate.value):
                error = estimate.stderr if math.isfinite(estimate.stderr) else 0.0
                ends = {
                    "value": estimate.value,
                    "low": estimate.value - error,
                    "high": estimate.value + error,
                }
                points.append(_point(place, name, PAIR_MEASURES[measure].title, with_error(estimate)) | ends)
        if math.isfinite(row["weight_change"]):
            words = share(row["weight_change"])
            points.append(_point(place, name, "weights", words) | {"value": row["weight_change"]})
    return points


def plot_changes(comparison: Comparison, ax: Axes) -> Axes:
    """Draws how alike the layers of one name are over depth, ± one standard error, and their weight change below."""
    frame = comparison.changes()
    places = np.arange(len(frame))
    for measure in [m for m in _DRAWN if m in frame]:
        errors = np.nan_to_num(frame.get(f"{measure}_stderr", pd.Series(0.0, frame.index)).to_numpy())
        title = PAIR_MEASURES[measure].title
        ax.errorbar(
            places, frame[measure], errors, marker="o", markersize=4, capsize=2, linewidth=1, label=title
        )
    if frame["weight_change"].notna().any():
        ax.plot(
            places, frame["weight_change"], "s--", color="0.5", markersize=3, linewidth=1, label="‖ΔW‖/‖W‖"
        )
    step = max(1, -(-len(frame) // 40))
    ax.set_xticks(places[::step], [str(name) for name in frame.index[::step]], rotation=45, ha="right")
    ax.set_ylabel("similarity, and relative change of the weights")
    ax.legend(frameon=False, fontsize=8)
    return ax


def _point(place: int, name: Any, series: str, text: str) -> dict[str, Any]:
    return {"place": place + 1, "label": str(name), "series": series, "text": text}


def _relative(weights: Sequence[WeightChange]) -> float:
    changed, before = (
        sum((getattr(each, name) or 0.0) ** 2 for each in weights) for name in ("change", "norm")
    )
    return math.sqrt(changed / before) if before else math.nan


def _estimates(frame: pd.DataFrame, measure: str) -> list[Estimate]:
    stderrs = frame.get(f"{measure}_stderr", pd.Series(math.nan, frame.index))
    return [Estimate(value, stderr) for value, stderr in zip(frame[measure], stderrs, strict=True)]


def _count(value: Any) -> str:
    return "–" if pd.isna(value) else str(value)


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _cell(text: str, value: Any) -> page_tables.Cell:
    return page_tables.Cell(text, "" if pd.isna(value) else float(value))
