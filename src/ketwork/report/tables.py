"""The tables of a page: columns with titles and units, cells with what is read and what is sorted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ketwork.networks.comparison.result import Comparison
from ketwork.quantum import Estimate
from ketwork.report.terminal import plus_minus
from ketwork.report.views import FEW_KETS, SHARES, View


@dataclass(frozen=True)
class Column:
    """A column by the name of its definition; `words` are aligned left."""

    name: str
    title: str
    unit: str = ""
    words: bool = False


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


MEASURES = {
    "cka": "debiased CKA",
    "cka_biased": "biased CKA",
    "bures": "Bures",
    "bures_null": "Bures null",
    "r2": "R²",
    "r2_reverse": "R² rev.",
    "r2_fit": "fit R²",
    "r2_fit_reverse": "fit R² rev.",
    "cka_distance": "CKA angle",
    "bures_distance": "Bures angle",
}
"""What the measures of a comparison are called."""

_ESTIMATES = (
    Column("entropy", "entropy", "bits"),
    Column("effective_rank", "eff. rank", "2^S"),
    Column("coherence", "coherence", "bits"),
    Column("rank_kept", "99 % rank", "of d"),
    Column("dead", "dead", "% of neurons"),
    Column("holevo", "Holevo", "bits"),
    Column("holevo_null", "null", "bits"),
    Column("pgm_balanced", "pretty good", "% balanced"),
    Column("linear_balanced", "linear", "% balanced"),
    Column("linear_r2", "linear", "R²"),
    Column("participation_ratio", "part. ratio", "1/Tr ρ²"),
    Column("top_weight", "top weight"),
    Column("entanglement", "entangl.", "bits"),
)


def layer_table(rows: Sequence[View]) -> Table:
    """One row a layer, in order of execution; quantities that no layer has are left out."""
    columns = [Column("place", "#"), Column("layer", "layer", words=True), Column("kind", "kind", words=True)]
    columns += [Column("d", "d"), Column("kets", "kets")]
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
    for column in _ESTIMATES:
        found = [row[column.name] for row in rows]
        if all(math.isnan(estimate.value) for estimate in found):
            continue
        columns.append(column)
        cells.append(_column(found, column.name in SHARES))
    return Table(tuple(columns), tuple(zip(*cells, strict=True)), opens=True)


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
        *(Column(measure, MEASURES[measure]) for measure in comparison.matrices),
    )
    found = []
    for name, match, mutual in zip(best["layer"], best["match"], best["mutual"], strict=True):
        i, j = rows[name], others[match]
        both = "yes" if mutual else "no"
        found.append(
            (
                _number(i + 1),
                Cell(name, name, words=True, head=True, place=i),
                Cell(match, match, words=True),
                Cell(both, both, words=True),
                *(_rounded(float(matrix[i, j])) for matrix in comparison.matrices.values()),
            )
        )
    return Table(columns, tuple(found))


def _column(found: Sequence[Estimate], share: bool) -> list[Cell]:
    scaled = [100 * estimate for estimate in found] if share else found
    if all(math.isnan(estimate.stderr) for estimate in found):
        values = [estimate.value for estimate in scaled]
        whole = all(math.isnan(value) or value == round(value) for value in values) and not share
        words = f"{{:.{0 if whole else 1 if share else 3}f}}".format
        shown = ["–" if math.isnan(estimate.value) else estimate.words(words) for estimate in scaled]
    else:
        shown = plus_minus(scaled)
    cells = []
    for estimate, text in zip(found, shown, strict=True):
        value, _, error = text.strip().partition(" ± ")
        cells.append(Cell(value, _sortable(estimate.value), error.strip()))
    return cells


def _kets(row: View) -> Cell:
    few = f"fewer than {FEW_KETS} a dimension: entropy and effective rank are limited by the data"
    return Cell(f"{row.layer.kets:,}", row.layer.kets, mark=few if row.few_kets else "")


def _sketch(row: View) -> Cell:
    rank = row.layer.sketch
    return Cell("exact", 0) if rank is None else Cell(f"{rank}: {row.layer.sketch_error:.1e}", rank)


def _number(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _rounded(value: float) -> Cell:
    return Cell("–" if math.isnan(value) else f"{value:.3f}", _sortable(value))


def _sortable(value: float) -> str | float:
    return "" if math.isnan(value) else float(f"{value:.8g}")
