"""The page of a detector: the scores of calibration samples and of those scored, the most unlike ones, each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ketwork.networks.detection import Detector
from ketwork.records import presents
from ketwork.report.detections import most_unlike, summary
from ketwork.report.document import Page, charts_module, target_of, write_page
from ketwork.report.histograms import CALIBRATION, SCORED, score_histograms
from ketwork.report.page_tables import Cell, Column, Table
from ketwork.report.words import short

_MOST = 50


@presents(Detector, "page")
def write_detection(
    detector: Detector,
    path: str | Path,
    *,
    scores: pd.DataFrame | None = None,
    alpha: float = 0.05,
    with_command: bool = False,
) -> Path:
    """Writes the page of a detector and returns its path.

    `scores` is what `Detector.score` returned: its histogram is drawn beside that of the calibration samples, the most
    unlike samples are listed, and, with `layers=True`, each layer's scores are drawn along the depth. `alpha` sets the
    alarms. `with_command` has the page the command line and absolute paths.

    Raises:
        ImportError: the extra `report` is missing.
        OSError: `path` cannot be written.
    """
    return write_page(target_of(path), detector, _page(detector, scores, alpha), with_command=with_command)


def _page(detector: Detector, scores: pd.DataFrame | None, alpha: float) -> Page:
    charts_module()  # which says what to install where it is missing
    from ketwork.report.detection_charts import layer_chart, score_chart

    source = detector.settings.get("source", {})
    parts = score_histograms(detector, scores)
    points = _points(detector, scores)
    charts = {"layers": layer_chart(points)}
    if parts:
        charts["scores"] = score_chart(parts, detector.threshold(alpha))
    content = {
        "data_spec": short(str(source.get("data", {}).get("spec", ""))) if scores is not None else "",
        "summary": summary(detector, scores, alpha),
        "has_scores": bool(parts),
        "alpha": alpha,
        "table": _layer_table(detector) if scores is None else _sample_table(scores),
        "listed": 0 if scores is None else min(len(scores), _MOST),
        "layers": [] if scores is None else _layer_rows(detector),
    }
    title = str(source.get("model", {}).get("spec") or detector.settings["model"])
    definitions = dict(detector.definitions)
    return Page("detection.html.j2", short(title), "detection", content, definitions, {"charts": charts})


def _points(detector: Detector, scores: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The median and nine of ten of each layer's part in the score, of calibration samples and of those scored."""
    parts = {CALIBRATION: detector.surprisal(detector.calibration[detector.fitted :]).numpy()}
    columns = [f"surprisal:{label}" for label in detector.labels]
    if scores is not None and set(columns) <= set(scores.columns):
        parts[SCORED] = scores[columns].to_numpy(dtype=float)
    points = []
    for kind, values in parts.items():
        for place, label in enumerate(detector.labels):
            known = values[:, place][np.isfinite(values[:, place])]
            if len(known):
                low, median, high = np.quantile(known, (0.05, 0.5, 0.95)).tolist()
                points.append(
                    {
                        "kind": kind,
                        "place": place + 1,
                        "label": label,
                        "low": low,
                        "median": median,
                        "high": high,
                    }
                )
    return points


def _sample_table(scores: pd.DataFrame) -> Table:
    """The most unlike samples."""
    columns = [Column("place", "#"), Column("sample", "sample", words=True), Column("score", "score")]
    columns += [Column("p_value", "p-value")]
    named = [name for name in ("nearest_class", "layer") if name in scores]
    columns += [Column(name, name.replace("_", " "), words=True) for name in named]
    rows = []
    for rank, (place, row) in enumerate(most_unlike(scores, _MOST).iterrows()):
        cells = [
            Cell(f"{rank + 1}", rank + 1),
            Cell(f"sample {place}", str(place), words=True, head=True, place=rank),
        ]
        cells += [_number(row["score"], ".4g"), _number(row["p_value"], ".3g")]
        cells += [
            Cell("–" if row[name] is None else str(row[name]), str(row[name]), words=True) for name in named
        ]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def _layer_table(detector: Detector) -> Table:
    """One row a layer."""
    columns = [Column("place", "#"), Column("layer", "layer", words=True), Column("kind", "kind", words=True)]
    columns += [
        Column("d", "d"),
        Column("N", "samples"),
        Column("classes", "classes"),
        Column("rank", "rank"),
    ]
    columns += [Column("shrinkage", "shrinkage"), Column("weight", "weight", "%")]
    rows = []
    for place, row in detector.table().iterrows():
        label = detector.labels[int(str(place))]
        cells = [
            Cell(f"{int(str(place)) + 1}", int(str(place)) + 1),
            Cell(label, label, words=True, head=True),
        ]
        cells += [Cell(str(row["kind"]), str(row["kind"]), words=True)]
        cells += [_number(row[name], ",d") for name in ("d", "N", "classes", "rank")]
        cells += [_number(row["shrinkage"], ".3g"), _number(100 * row["weight"], ".1f")]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def _layer_rows(detector: Detector) -> list[dict[str, Any]]:
    """The layers with their weights, for a list beside the picture."""
    return [
        {"label": label, "weight": f"{100 * weight:.1f}"}
        for label, weight in zip(detector.labels, detector.table()["weight"], strict=True)
    ]


def _number(value: Any, spec: str) -> Cell:
    missing = isinstance(value, float) and not np.isfinite(value)
    return Cell("–" if missing else format(value, spec), "" if missing else float(f"{value:.8g}"))
