"""A comparison as tables: one row a pair, one row a pair and measure, and the few columns that are printed."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from ketwork.networks.measures import PAIR_MEASURES

COVERED = 1.959963984540054
"""Standard errors on both sides that 95 of 100 data sets lie within."""

_PAIR = ["layer", "other", "d", "d_other", "rank", "rank_other", "N", "samples", "n_per_d"]
_LONG = ["layer", "other", "measure", "value", "stderr", "low", "high", "error"]
_LONG += ["N", "samples", "d", "d_other", "rank", "rank_other"]
_BRIEF = ("bures", "bures_null", "r2", "r2_reverse")


def table(comparison: Any) -> pd.DataFrame:
    """One row a pair of layers; see `Comparison.table`."""
    every = {}
    for name in comparison.measures:
        every[name] = comparison.matrix(name)
        if (stderr := comparison.stderr_matrix(name)) is not None:
            every[f"{name}_stderr"] = stderr
    every |= {f"{name}_error": matrix for name, matrix in comparison.errors.items()}
    rows = [
        _pair(comparison, i, j) | {name: float(matrix[i, j]) for name, matrix in every.items()}
        for i, j in _places(comparison)
    ]
    frame = pd.DataFrame(rows, columns=[*_PAIR, *every])
    return frame.astype({"rank": "Int64", "rank_other": "Int64"})


def long(comparison: Any) -> pd.DataFrame:
    """One row a pair of layers and measure; see `Comparison.long`."""
    rows = []
    for i, j in _places(comparison):
        pair = _pair(comparison, i, j)
        for name in comparison.measures:
            estimate = comparison.estimate(name, i, j)
            reach = COVERED * estimate.stderr
            error = comparison.errors.get(name)
            numbers = {
                "measure": name,
                "value": estimate.value,
                "stderr": estimate.stderr,
                "low": estimate.value - reach,
                "high": estimate.value + reach,
                "error": math.nan if error is None else float(error[i, j]),
            }
            rows.append(pair | numbers)
    return pd.DataFrame(rows, columns=_LONG).astype({"rank": "Int64", "rank_other": "Int64"})


def best_match(comparison: Any, measure: str) -> pd.DataFrame:
    """Each row's most similar column; see `Comparison.best_match`."""
    matrix = comparison.matrix(measure)
    sign = -1.0 if PAIR_MEASURES[measure].distance_of else 1.0
    values = sign * matrix
    values = torch.where(values.isnan(), -math.inf, values)
    if comparison.itself:
        values.fill_diagonal_(-math.inf)
    rows = []
    for i, layer in enumerate(comparison.rows):
        j = int(values[i].argmax())
        if values[i, j] == -math.inf:
            continue
        mutual = int(values[:, j].argmax()) == i
        rows.append(
            {
                "layer": layer.name,
                "match": comparison.columns[j].name,
                measure: sign * float(values[i, j]),
                "mutual": mutual,
            }
        )
    return pd.DataFrame(rows, columns=["layer", "match", measure, "mutual"]).set_index("layer")


def brief(comparison: Any) -> pd.DataFrame:
    """Each layer's best match by the first measure, and some measures of the two, with standard errors."""
    best = comparison.best_match().reset_index()
    places = {layer.name: i for i, layer in enumerate(comparison.rows)}
    others = {layer.name: j for j, layer in enumerate(comparison.columns)}
    at = [(places[a], others[b]) for a, b in zip(best["layer"], best["match"], strict=True)]
    columns: dict[str, Any] = {"layer": best["layer"], "match": best["match"]}
    for name in [comparison.measures[0], *(name for name in _BRIEF if name in comparison.matrices)]:
        if name in columns:
            continue
        columns[name] = [float(comparison.matrices[name][place]) for place in at]
        errors = comparison.stderrs.get(name)
        if errors is not None and not bool(errors.isnan().all()):
            columns[f"± {name}"] = [float(errors[place]) for place in at]
    return pd.DataFrame(columns)


def _places(comparison: Any) -> list[tuple[int, int]]:
    """The pairs that rows are of: of a model with itself each once, and no layer with itself."""
    return [
        (i, j)
        for i in range(len(comparison.rows))
        for j in range(len(comparison.columns))
        if not comparison.itself or j > i
    ]


def _pair(comparison: Any, i: int, j: int) -> dict[str, Any]:
    layer, other = comparison.rows[i], comparison.columns[j]
    return {
        "layer": layer.name,
        "other": other.name,
        "d": layer.d,
        "d_other": other.d,
        "rank": layer.rank,
        "rank_other": other.rank,
        "N": comparison.n,
        "samples": comparison.independent,
        "n_per_d": comparison.n / max(layer.d, other.d),
    }
