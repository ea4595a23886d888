"""What a reader of a comparison's numbers should know."""

from __future__ import annotations

from typing import Any

_FEW = 10


def warnings_of(comparison: Any) -> list[str]:
    """Of the pass, of too few samples, of what has no standard error, and of layers that were projected."""
    notes = []
    if not comparison.complete:
        notes.append(f"The pass ended early, after {comparison.n} {unit_of(comparison)}: {comparison.error}")
    if comparison.missing_pairs is not None:
        notes.append(comparison.missing_pairs)
    if comparison.unknown is not None:
        notes.append(f"No standard errors (–): {comparison.unknown}.")
    layers = dict.fromkeys((*comparison.rows, *comparison.columns))
    samples = comparison.independent
    few = list(dict.fromkeys(layer.name for layer in layers if samples < _FEW * layer.held))
    if few:
        notes.append(
            f"Fewer than {_FEW} samples per dimension in {_listed(few)}: read bures beside bures_null; r2 is "
            "uncertain, and NaN where samples do not outnumber dimensions. CKA is debiased."
        )
    projected = list(dict.fromkeys(layer.name for layer in layers if layer.held < layer.d))
    if projected:
        widest = max(layer.held for layer in layers if layer.held < layer.d)
        first = next(iter(comparison.matrices))
        largest = float(comparison.errors[first].nan_to_num().max())
        notes.append(
            f"Projected at random to {widest} dimensions to stay within memory: {_listed(projected)}. This may "
            f"have changed {first} by up to {largest:.2g}, see `errors`. Give more `memory=` for exact numbers."
        )
    return notes


def unit_of(comparison: Any) -> str:
    """What was compared, in words."""
    return "positions" if comparison.settings.get("unit") == "position" else "samples"


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
