"""The tables of a page: columns with titles and units, cells with what is read and what is sorted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.measures import MEASURES, PAIR_MEASURES, Measure, measures_of
from ketwork.networks.study import FEW_SAMPLES, Study
from ketwork.quantum import Estimate
from ketwork.report.views import View
from ketwork.report.words import plus_minus


@dataclass(frozen=True)
class Column:
    """A column by the name of its definition; `words` are left-aligned; the lower its `rank`, the longer it stays."""

    name: str
    title: str
    unit: str = ""
    words: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the value to sort by ("" for none); a `head` names its row, by the layer's place."""

    text: str
    value: str | float
    error: str = ""
    mark: str = ""
    words: bool = False
    head: bool = False
    place: int = 0


@dataclass(frozen=True)
class Table:
    """Columns and rows; `opens` says that a row leads to a layer's pictures."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    opens: bool = False


def layer_table(rows: Sequence[View], task: str | None) -> Table:
    """One row a layer, in order of execution; measures that no layer has are skipped."""
    columns = [
        Column("place", "#"),
        Column("layer", "layer", words=True),
        Column("kind", "kind", words=True, rank=12),
    ]
    columns += [Column("d", "d", rank=1), Column("kets", "vectors", rank=9)]
    cells = [
        [_number(row.place + 1) for row in rows],
        [Cell(row.label, row.label, words=True, head=True, place=row.place) for row in rows],
        [Cell(row.layer.kind, row.layer.kind, words=True) for row in rows],
        [_number(row.layer.d) for row in rows],
        [_kets(row) for row in rows],
    ]
    if any(row.layer.sketch is not None for row in rows):
        columns.append(Column("sketch", "sketch", "rank: error"))
        cells.append([_sketch(row) for row in rows])
    for measure in measures_of(task):
        if measure.column is None or not measure.column.page:
            continue
        estimates = [row[measure.name] for row in rows]
        if not measure.column.tells(estimates):
            continue
        unit = f"% {measure.column.unit}".strip() if measure.show == "percent" else measure.column.unit
        columns.append(Column(measure.name, measure.column.header, unit, rank=measure.column.rank))
        cells.append(_column(measure, estimates))
        if measure.name == "effective_rank":
            columns.append(Column("rank_share", "÷ d", "%", rank=5))
            cells.append(estimate_cells([100 * row.layer.rank_share for row in rows]))
    return Table(tuple(columns), tuple(zip(*cells, strict=True)), opens=True)


BESIDE = ("effective_rank", "entropy", "top_weight")
"""What two studies of the same layers are compared by."""


def side_by_side(rows: Sequence[View], other: Study) -> Table:
    """The layers that another study has too, with what both say of them."""
    both = [(row, other[row.layer.info.key]) for row in rows if row.layer.info.key in other]
    columns = [Column("layer", "layer", words=True)]
    cells = [[Cell(row.label, row.label, words=True, head=True, place=row.place) for row, _ in both]]
    for name in BESIDE:
        measure = MEASURES[name]
        unit = "%" if measure.show == "percent" else measure.unit
        for estimates in ([row[name] for row, _ in both], [layer.estimate(name) for _, layer in both]):
            columns.append(Column(name, measure.title, unit))
            cells.append(_column(measure, estimates))
    return Table(tuple(columns), tuple(zip(*cells, strict=True)))


def best_matches(comparison: Comparison) -> Table:
    """Each row's layer, the column's layer most like it, and every measure of the two."""
    best = comparison.best_match().reset_index()
    rows = {layer.name: i for i, layer in enumerate(comparison.rows)}
    others = {layer.name: j for j, layer in enumerate(comparison.columns)}
    columns = (
        Column("place", "#"),
        Column("layer", "layer", words=True),
        Column("match", "best match", words=True),
        Column("mutual", "mutual", words=True),
        *(Column(measure, PAIR_MEASURES[measure].title) for measure in comparison.matrices),
    )
    at = [(rows[name], others[match]) for name, match in zip(best["layer"], best["match"], strict=True)]
    both = ["yes" if mutual else "no" for mutual in best["mutual"]]
    cells = [
        [_number(i + 1) for i, _ in at],
        [
            Cell(name, name, words=True, head=True, place=i)
            for name, (i, _) in zip(best["layer"], at, strict=True)
        ],
        [Cell(match, match, words=True) for match in best["match"]],
        [Cell(word, word, words=True) for word in both],
        *(
            estimate_cells([comparison.estimate(measure, *place) for place in at])
            for measure in comparison.matrices
        ),
    ]
    return Table(columns, tuple(zip(*cells, strict=True)))


def smallest_ranks(curve: CollapseCurve) -> Table:
    """Each layer's smallest rank that keeps the metric, as far as measured, and the metric there."""
    columns = [Column("place", "#"), Column("layer", "layer", words=True), Column("kind", "kind", words=True)]
    columns += [Column("d", "d"), Column("rank", "rank"), Column("share", "of d", "%")]
    columns += [Column("weight", "variance", "%"), Column("value", curve.label)]
    best = [layer.smallest for layer in curve.layers]
    cells = [
        [_number(i + 1) for i in range(len(best))],
        [Cell(x.label, x.label, words=True, head=True, place=i) for i, x in enumerate(curve.layers)],
        [Cell(layer.kind, layer.kind, words=True) for layer in curve.layers],
        [_number(layer.d) for layer in curve.layers],
        [_number(point.rank) for point in best],
        [_share(point.rank / layer.d, 1) for point, layer in zip(best, curve.layers, strict=True)],
        [_share(point.weight, 2) for point in best],
        estimate_cells([point.value for point in best]),
    ]
    if not curve.settings["to_original"]:  # the KL is the change
        columns.append(Column("change", "change"))
        cells.append(estimate_cells([point.change for point in best]))
    return Table(tuple(columns), tuple(zip(*cells, strict=True)))


def estimate_cells(estimates: Sequence[Estimate]) -> list[Cell]:
    """Cells of values, each with its standard error."""
    cells = []
    for estimate, text in zip(estimates, plus_minus(estimates), strict=True):
        value, _, error = text.strip().partition(" ± ")
        cells.append(Cell(value, _sortable(estimate.value), without_zero(error)))
    return cells


def without_zero(error: str) -> str:
    """The error of a cell; none where it would read as 0.

    >>> without_zero("0.000"), without_zero(" 0.012")
    ('', '0.012')
    """
    return error.strip() if error.strip(" 0.") else ""


def _share(share: float, places: int) -> Cell:
    return Cell(f"{100 * share:.{places}f}", _sortable(share))


def _column(measure: Measure, estimates: Sequence[Estimate]) -> list[Cell]:
    share = measure.show == "percent"
    scaled = [100 * estimate for estimate in estimates] if share else list(estimates)
    if measure.stderr and not all(math.isnan(estimate.stderr) for estimate in estimates):
        texts = plus_minus(scaled)
    else:
        words = f"{{:.{0 if measure.show == 'count' else 1 if share else 3}f}}".format
        texts = ["–" if math.isnan(estimate) else estimate.words(words) for estimate in scaled]
    cells = []
    for estimate, text in zip(estimates, texts, strict=True):
        value, _, error = text.strip().partition(" ± ")
        cells.append(Cell(value, _sortable(estimate.value), without_zero(error)))
    return cells


def _kets(row: View) -> Cell:
    few = (
        f"fewer than {FEW_SAMPLES} independent samples a dimension in use: the correction of entropy and "
        "effective rank for finite data is large"
    )
    return Cell(f"{row.layer.kets:,}", row.layer.kets, mark=few if row.few_samples else "")


def _sketch(row: View) -> Cell:
    rank = row.layer.sketch
    return Cell("exact", 0) if rank is None else Cell(f"{rank}: {row.layer.sketch_error:.1e}", rank)


def _number(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _sortable(value: float) -> str | float:
    return "" if math.isnan(value) else float(f"{value:.8g}")
