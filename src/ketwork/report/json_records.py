"""A record as plain JSON: every number of its table, and what is known about it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pandas as pd

from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.compression import Compressed
from ketwork.networks.detection import Detector
from ketwork.networks.study import Study
from ketwork.records import pack


def as_json(study: Study) -> dict[str, Any]:
    """The study's table as a list of records, its settings, and its warnings and reasons, all of them JSON-able.

    Numbers are those of `Study.table()`, unrounded; one that does not exist (NaN) is None.
    """
    return {
        "samples": study.samples,
        "complete": study.complete,
        "error": study.error,
        "settings": study.settings,
        "warnings": list(study.warnings),
        "skipped": study.skipped,
        "table": _rows(study.table()),
        "plan": pack(study.plan)[0] if study.plan is not None else None,
        "definitions": study.definitions,
    }


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison's table of pairs, and of what changed, as lists of records, in the form of `as_json`."""
    return {
        "n": comparison.n,
        "complete": comparison.complete,
        "error": comparison.error,
        "settings": comparison.settings,
        "warnings": list(comparison.warnings),
        "skipped": comparison.skipped,
        "table": _rows(comparison.table()),
        "changes": None if comparison.itself else _rows(comparison.changes().reset_index()),
        "definitions": comparison.definitions,
    }


def curve_as_json(curve: CollapseCurve) -> dict[str, Any]:
    """Every point of the collapse curves as a list of records, and each layer's smallest rank likewise."""
    return {
        "samples": curve.samples,
        "passes": curve.passes,
        "metric": curve.metric,
        "original": {"value": _number(curve.original.value), "stderr": _number(curve.original.stderr)},
        "tolerance": curve.tolerance,
        "criterion": curve.criterion,
        "settings": curve.settings,
        "skipped": curve.skipped,
        "smallest": _rows(curve.smallest()),
        "table": _rows(curve.table()),
        "definitions": curve.definitions,
    }


def detection_as_json(detector: Detector, scores: pd.DataFrame | None = None) -> dict[str, Any]:
    """A detector's layers as a list of records, and the samples that it scored likewise."""
    return {
        "settings": detector.settings,
        "skipped": detector.skipped,
        "calibration_samples": len(detector.calibration_scores),
        "weighing_samples": detector.fitted,
        "threshold": {f"{alpha:g}": _number(detector.threshold(alpha)) for alpha in (0.01, 0.05, 0.1)},
        "table": _rows(detector.table()),
        "scores": None if scores is None else _rows(scores.reset_index()),
        "definitions": detector.definitions,
    }


def compressed_as_json(result: Compressed) -> dict[str, Any]:
    """What became of each module as a list of records, the candidates, and the totals before and after."""
    return {
        "before": asdict(result.before),
        "after": asdict(result.after),
        "kl": result.kl,
        "chosen": result.chosen,
        "candidates": [
            {name: _number(value) for name, value in asdict(tried).items()} for tried in result.candidates
        ],
        "passes": result.passes,
        "settings": result.settings,
        "warnings": list(result.warnings),
        "table": _rows(result.table()),
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _number(value) for name, value in row.items()} for row in table.to_dict("records")]


def _number(value: Any) -> Any:
    return None if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)) else value
