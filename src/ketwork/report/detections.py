"""A detector and what it scored as a table in a terminal, fitted to its width."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ketwork.networks.detection import Detector
from ketwork.report.terminal_table import Column, bar, drawn
from ketwork.report.words import short

MOST = 10
"""Samples that are shown, the most unlike ones."""


def render_detection(detector: Detector, scores: pd.DataFrame | None, alpha: float, console: Console) -> None:
    """Prints the layers and their weights, or, where samples were scored, the most unlike of them."""
    source = detector.settings.get("source", {})
    model = source.get("model", {}).get("spec", detector.settings["model"])
    data = source.get("data", {}).get("spec") if scores is not None else None
    title = Text.assemble(
        ("Detector of what is unlike the data of ", "bold"), (short(str(model)), "bold cyan")
    )
    console.print(title.append(f" on {short(str(data))}" if data else ""), highlight=False)
    console.print(_layers(detector, console.width) if scores is None else _samples(scores, console.width))
    console.print(summary(detector, scores, alpha), highlight=False, markup=False)


def summary(detector: Detector, scores: pd.DataFrame | None, alpha: float) -> str:
    """How many alarms there are, how many there would be by chance, and what the p-values are of."""
    held = len(detector.calibration_scores)
    made = (
        f"{detector.method}, {len(detector.references)} layers, {len(detector.terms)} terms"
        + (f" weighted by {detector.fitted} calibration samples" if detector.fitted else "")
        + f"; p-values from {held} {'others' if detector.fitted else 'calibration samples'} "
        f"({detector.settings['calibration']})."
    )
    if scores is None:
        return f"{made} p ≤ {alpha:g} above a score of {detector.threshold(alpha):.4g}."
    alarms, n = int((scores["p_value"].isna() | (scores["p_value"] <= alpha)).sum()), len(scores)
    error = math.sqrt(max(alarms * (n - alarms), 1) / n**3)
    spread = math.sqrt(alpha * (1 - alpha) / held)
    return (
        f"{alarms:,} of {n:,} samples ({100 * alarms / n:.1f} ± {100 * error:.1f} %) have p ≤ {alpha:g}, as at most "
        f"{100 * alpha:g} % of samples like those studied have on average ({100 * alpha:g} ± {100 * spread:.1f} % with "
        f"{held} calibration samples). {made}"
    )


def most_unlike(scores: pd.DataFrame, most: int = MOST) -> pd.DataFrame:
    """The rows with the largest scores, those without one first."""
    return scores.sort_values("score", ascending=False, na_position="first", kind="stable").head(most)


def _samples(scores: pd.DataFrame, width: int) -> Padding:
    rows = most_unlike(scores)
    columns = [
        Column("score", [Text(f"{value:.4g}", "bold") for value in rows["score"]], 0),
        Column("p-value", [Text(f"{value:.2g}") for value in rows["p_value"]], 0),
    ]
    if "nearest_class" in rows:
        columns.append(
            Column("nearest class", [Text(_word(value)) for value in rows["nearest_class"]], 5, words=True)
        )
    columns.append(Column("layer", [Text(_word(value)) for value in rows["layer"]], 4, words=True))
    return drawn([f"sample {place}" for place in rows.index], columns, width)


def _layers(detector: Detector, width: int) -> Padding:
    table = detector.table()
    columns = [
        Column("kind", [Text(kind) for kind in table["kind"]], 6, words=True),
        Column("d", [Text(str(d)) for d in table["d"]], 0),
        Column("rank", [Text(str(rank)) for rank in table["rank"]], 4),
        Column("shrinkage", [Text(f"{share:.2g}") for share in table["shrinkage"]], 5),
        Column("weight", [bar(share) for share in table["weight"]], 7, words=True),
    ]
    return drawn(detector.labels, columns, width)


def _word(value: object) -> str:
    return "–" if value is None else str(value)
