"""Histograms of a detector's scores: of its calibration samples, and of those that it scored, in the same bins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ketwork.networks.detection import Detector

CALIBRATION, SCORED = "calibration samples", "scored samples"
_BINS = 40
_BEYOND = 4.0  # how much wider than the calibration samples' range what is drawn may be


@dataclass(frozen=True)
class Histogram:
    """The share of n samples in each bin; what lies beyond the last edge is counted in the last bin."""

    name: str
    n: int
    edges: np.ndarray
    shares: np.ndarray


def score_histograms(detector: Detector, scores: pd.DataFrame | None = None) -> list[Histogram]:
    """That of the calibration samples' scores, and of the scored ones where there are some."""
    parts = {CALIBRATION: detector.calibration_scores.numpy()}
    if scores is not None:
        parts[SCORED] = scores["score"].to_numpy(dtype=float)
    parts = {name: values[np.isfinite(values)] for name, values in parts.items()}
    parts = {name: values for name, values in parts.items() if len(values)}
    if not parts:
        return []
    known = parts.get(CALIBRATION, next(iter(parts.values())))
    low, high = min(map(np.min, parts.values())), max(map(np.max, parts.values()))
    high = min(high, known.max() + _BEYOND * max(np.ptp(known), 1e-9))
    low = max(low, known.min() - _BEYOND * max(np.ptp(known), 1e-9))
    edges = np.linspace(low, max(high, low + 1e-9), _BINS + 1)
    return [
        Histogram(name, len(each), edges, np.histogram(each.clip(edges[0], edges[-1]), edges)[0] / len(each))
        for name, each in parts.items()
    ]
