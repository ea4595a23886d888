"""A study's rows as pandas frames: wide, long, and the few columns that are printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ketwork.networks.measures import Measure
from ketwork.networks.study.layer import Layer
from ketwork.quantum import Estimate

DEFINITIONS: dict[str, str] = {
    "layer": "the module's dotted path in the network",
    "call": "which call of the module in a forward pass, from 0; −1 where its calls are pooled",
    "kind": "the module's class",
    "d": "features: neurons or channels, the dimension of the kets",
    "N": "samples",
    "kets": "activation vectors (kets): positions of samples that entered, zero vectors excluded",
    "N_eff": "independent samples, by the weight that each carries: Kish's (Σ w)²/Σ w² with w the weight of all of a "
    "sample's vectors; N where all weigh alike",
    "n_per_d": "N_eff / d, independent samples a dimension: entropy, effective rank and coherence are corrected for "
    "finite data, which is no longer small below 4 a dimension in use",
    "plain": "the number of the data at hand; `value` is that of the distribution they come from, corrected for finite "
    "data (jackknife over samples), and missing where the data are too few for that",
    "dropped": "samples skipped at this layer for NaN or infinite values",
    "sketch": "rank ℓ of the sketch (Frequent Directions) that stands for the layer's d × d moment, which the memory "
    "budget has no place for; the layer is exact where there is none",
    "sketch_error": "certified: in no direction does what the sketch keeps of ρ fall short of ρ by more than this (the "
    "spectral norm of the difference)",
    "bounds": "Columns _low and _high: guaranteed bounds of what exact moments of the same data and kept samples would "
    "give; a number without them is not touched by the sketch. Of wide layers without a sketch they hold it in 99.7 % "
    "of cases. ± is the sampling of the data, as always",
}
"""What the columns mean that are no measures."""

_BRIEF = ("entropy", "effective_rank", "coherence", "top_weight", "dead")
_BRIEF_OF_LABELS = ("holevo", "holevo_null", "linear_balanced", "pgm_balanced", "linear_r2")
"""What a printed study shows."""

_LONG = ["layer", "call", "quantity", "value", "stderr", "low", "high", "plain", "unit", "N", "d"]


def table(layers: Sequence[Layer], measures: Sequence[Measure]) -> pd.DataFrame:
    """One row a layer and call; see `Study.table`."""
    columns = ["call", "kind", "d", "N", "N_eff", "kets", "n_per_d", "dropped"]
    # Those of an older record that lacks them are computed here, with their bounds.
    touched = {m.name for m in measures for layer in layers if layer.estimate(m.name).bounds is not None}
    columns += ["sketch", "sketch_error"] if touched else []
    units: dict[str, str] = {}
    for each in measures:
        names = [each.name]
        names += [f"{each.name}_stderr"] if each.stderr else []
        names += [f"{each.name}_low", f"{each.name}_high"] if each.name in touched else []
        units |= dict.fromkeys(names, each.unit)
        columns += names
    rows = [_row(layer, measures) for layer in layers]
    frame = pd.DataFrame(rows, columns=["layer", *columns])
    frame = frame.astype({"sketch": "Int64"}) if touched else frame
    frame.index = pd.Index(frame["layer"].tolist())  # without a name of its own, which the column has
    frame.attrs["units"] = units
    return frame


def long(layers: Sequence[Layer], measures: Sequence[Measure]) -> pd.DataFrame:
    """One row a layer, call and measure; see `Study.long`."""
    rows = []
    for layer in layers:
        for each in measures:
            estimate = layer.estimate(each.name)
            low, high = estimate.bounds or (math.nan, math.nan)
            numbers = (estimate.value, estimate.stderr, low, high, estimate.plain)
            rows.append((layer.name, layer.call, each.name, *numbers, each.unit, layer.N, layer.d))
    return pd.DataFrame(rows, columns=_LONG)


def brief(layers: Sequence[Layer], measures: Mapping[str, Measure]) -> pd.DataFrame:
    """The few columns that a printed study shows."""
    columns: dict[str, list[Any]] = {
        "layer": [layer.name for layer in layers],
        "call": [layer.call for layer in layers],
        "d": [layer.d for layer in layers],
        "vectors": [layer.kets for layer in layers],
    }
    for name in (*_BRIEF, *_BRIEF_OF_LABELS):
        if name not in measures:
            continue
        estimates = [layer.estimate(name) for layer in layers]
        if name in _BRIEF_OF_LABELS and all(map(math.isnan, estimates)):
            continue
        columns[_header(measures[name])] = [_without_unit(estimate) for estimate in estimates]
    if any(layer.sketch is not None for layer in layers):
        columns["sketch"] = [
            f"{layer.sketch}: {layer.sketch_error:.1e}" if layer.sketch is not None else ""
            for layer in layers
        ]
    return pd.DataFrame(columns)


def bounded(estimates: Mapping[str, Estimate]) -> list[str]:
    """The measures that are known to lie between bounds, those of sketched layers."""
    return [name for name, estimate in estimates.items() if estimate.bounds is not None]


def _header(measure: Measure) -> str:
    """What stands over a measure in a printed table, its unit included."""
    if measure.column is None:
        return measure.title
    return measure.column.header + (f" ({measure.column.unit})" if measure.column.unit else "")


def _without_unit(estimate: Estimate) -> str:
    return str(Estimate(estimate.value, estimate.stderr, estimate.bounds))


def _row(layer: Layer, measures: Sequence[Measure]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layer": layer.name,
        "call": layer.call,
        "kind": layer.kind,
        "d": layer.d,
        "N": layer.N,
        "N_eff": layer.N_eff,
        "kets": layer.kets,
        "n_per_d": layer.N_eff / layer.d,
        "dropped": layer.accumulator.dropped,
    }
    row |= {"sketch": layer.sketch, "sketch_error": layer.sketch_error}
    for each in measures:
        estimate = layer.estimate(each.name)
        row |= {each.name: estimate.value, f"{each.name}_stderr": estimate.stderr}
        if estimate.bounds is not None:
            row |= dict(zip((f"{each.name}_low", f"{each.name}_high"), estimate.bounds, strict=True))
    return row
