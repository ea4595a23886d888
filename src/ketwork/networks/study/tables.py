"""A study's rows as pandas frames: wide, long, and the few columns that are printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ketwork.networks.measures.quantities import Quantity
from ketwork.networks.study.layer import NONE, Layer
from ketwork.quantum import Estimate

_EXACT = ("dead", "zero", "holevo", "holevo_null")
_BRIEF_OF_LABELS = {
    "holevo": "Holevo bits",
    "holevo_null": "of random labels",
    "linear_balanced": "linear, balanced",
    "pgm_balanced": "pretty good, balanced",
    "linear_r2": "linear R²",
}
"""What a printed study shows of labels, and its titles."""


def table(layers: Sequence[Layer], quantities: Sequence[Quantity]) -> pd.DataFrame:
    """One row a layer and call; see `Study.table`."""
    columns = ["layer", "call", "kind", "d", "N", "kets", "n_per_d", "dropped"]
    touched = {name for layer in layers for name in bounded(layer.all_estimates)}
    columns += ["sketch", "sketch_error"] if touched else []
    for quantity in quantities:
        columns += [quantity.name] if quantity.name in _EXACT else [quantity.name, f"{quantity.name}_se"]
        columns += [f"{quantity.name}_low", f"{quantity.name}_high"] if quantity.name in touched else []
    table = pd.DataFrame([_row(layer) for layer in layers], columns=columns)
    return table.astype({"sketch": "Int64"}) if touched else table


def long(layers: Sequence[Layer], quantities: Sequence[Quantity]) -> pd.DataFrame:
    """One row a layer, call and quantity; see `Study.long`."""
    rows = []
    for layer in layers:
        for quantity in quantities:
            estimate = layer.all_estimates.get(quantity.name, NONE)
            rows.append(
                {
                    "layer": layer.name,
                    "call": layer.call,
                    "quantity": quantity.name,
                    "value": estimate.value,
                    "stderr": estimate.stderr,
                    **dict(zip(("low", "high"), estimate.bounds or (math.nan, math.nan), strict=True)),
                    "unit": quantity.unit,
                    "N": layer.N,
                    "d": layer.d,
                }
            )
    columns = ["layer", "call", "quantity", "value", "stderr", "low", "high", "unit", "N", "d"]
    return pd.DataFrame(rows, columns=columns)


def brief(layers: Sequence[Layer]) -> pd.DataFrame:
    """The few columns that a printed study shows."""
    brief = pd.DataFrame(
        {
            "layer": [layer.name for layer in layers],
            "call": [layer.call for layer in layers],
            "d": [layer.d for layer in layers],
            "kets": [layer.kets for layer in layers],
            "entropy": [str(layer.estimates["entropy"]) for layer in layers],
            "effective rank": [str(layer.estimates["effective_rank"]) for layer in layers],
            "coherence": [str(layer.estimates["coherence"]) for layer in layers],
            "top weight": [str(layer.estimates["top_weight"]) for layer in layers],
            "dead": [f"{layer.estimates['dead'].value:.3f}" for layer in layers],
        }
        | ({"sketch": [_sketched(layer) for layer in layers]} if any(map(_sketched, layers)) else {})
    )
    for name, title in _BRIEF_OF_LABELS.items():
        found = [layer.all_estimates.get(name) for layer in layers]
        if any(estimate is not None and math.isfinite(estimate.value) for estimate in found):
            brief[title] = ["–" if e is None or math.isnan(e.value) else str(e) for e in found]
    return brief


def bounded(estimates: Mapping[str, Estimate]) -> list[str]:
    """The quantities that are known to lie between bounds, those of sketched layers."""
    return [name for name, estimate in estimates.items() if estimate.bounds is not None]


def _row(layer: Layer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layer": layer.name,
        "call": layer.call,
        "kind": layer.kind,
        "d": layer.d,
        "N": layer.N,
        "kets": layer.kets,
        "n_per_d": layer.kets / layer.d,
        "dropped": layer.statistics.dropped,
    }
    row |= {"sketch": layer.sketch, "sketch_error": layer.sketch_error}
    for name, estimate in layer.all_estimates.items():
        row |= {name: estimate.value, f"{name}_se": estimate.stderr}
        if estimate.bounds is not None:
            row |= dict(zip((f"{name}_low", f"{name}_high"), estimate.bounds, strict=True))
    return row


def _sketched(layer: Layer) -> str:
    return f"{layer.sketch}: {layer.sketch_error:.1e}" if layer.sketch is not None else ""
