"""The page of a compressed network: what it kept, what that cost, what became of each layer, and how it is used."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from ketwork.networks.compression import Compressed
from ketwork.quantum import Estimate
from ketwork.records import presents
from ketwork.report.actions import of_compressed
from ketwork.report.document import Page, charts_module, target_of, write_page
from ketwork.report.page_tables import Cell, Column, Table
from ketwork.report.words import by_reason, short

_MOST = 60  # layers in the picture

DEFINITIONS = {
    "rank": "how many directions a layer's output keeps; – where it keeps all",
    "units": "how many of the layer's neurons, channels or heads stay; – where all do",
    "kept": "the share of the layer's parameters that the smaller network has",
    "discarded": "the share of the variance of the layer's output that is gone",
    "kl_share": "of what all layers are estimated to add to the KL, this layer's part",
    "kl": "the Kullback–Leibler divergence of the smaller network's predictions from the original's, on samples held "
    "back, in nats a prediction: 0 where they agree; for outputs that are no logits half the squared distance",
}


@presents(Compressed, "page")
def write_compressed(result: Compressed, path: str | Path, *, with_command: bool = False) -> Path:
    """Writes the account of a compressed network as one HTML page that needs no network, and returns its path.

    `with_command` has it the command line and absolute paths.

    Raises:
        ImportError: the extra `report` is missing.
        OSError: `path` cannot be written.
    """
    return write_page(target_of(path), result, _page(result), with_command=with_command)


def _page(result: Compressed) -> Page:
    charts_module()  # which says what to install where it is missing
    from ketwork.report.compressed_charts import kept_chart

    table = result.table()
    changed = table[[not row.reason for row in result.layers]]
    points: list[dict[str, Any]] = [
        {"label": row.path, "kept": row.parameters / row.parameters_before, "text": f"{row.parameters:,}"}
        for row in result.layers
        if not row.reason and row.parameters_before
    ]
    source = result.settings.get("source", {})
    content = {
        "data_spec": short(str(source.get("data", {}).get("spec", ""))),
        "totals": _totals(result),
        "kl": Estimate(result.kl, result.kl_stderr),
        "shown": min(len(points), _MOST),
        "changed": len(changed),
        "dead": by_reason(result.dead),
        "table": _table(changed),
    }
    charts = {"kept": kept_chart(min(len(points), _MOST))} if points else {}
    title = short(str(source.get("model", {}).get("spec", "A compressed network")))
    data = {"charts": charts, "points": sorted(points, key=lambda point: point["kept"])[:_MOST]}
    return Page(
        "compressed.html.j2", title, "compressed network", content, DEFINITIONS, data, of_compressed(result)
    )


def _totals(result: Compressed) -> list[tuple[str, str, str, str]]:
    """Each cost with what it was, what it is, and the share that is left."""
    before, after = result.before, result.after
    rows = [
        ("parameters", before.parameters, after.parameters, ",.0f"),
        ("multiply-adds a sample", before.multiply_adds, after.multiply_adds, ",.0f"),
        ("bytes", before.bytes, after.bytes, ",.0f"),
        ("ms a batch, measured", 1e3 * before.latency, 1e3 * after.latency, ",.3f"),
    ]
    return [
        (name, f"{old:{form}}", f"{new:{form}}", f"{new / old:.1%}" if old else "–")
        for name, old, new, form in rows
    ]


def _table(changed: pd.DataFrame) -> Table:
    """One row for each layer that could be cut."""
    columns = (
        Column("place", "#"),
        Column("layer", "layer", words=True),
        Column("kind", "kind", words=True, rank=9),
        Column("shape", "m × k", words=True, rank=8),
        Column("rank", "rank", rank=1),
        Column("units", "units", rank=2),
        Column("parameters", "parameters", rank=3),
        Column("kept", "kept", "%"),
        Column("discarded", "discarded", "%", rank=5),
        Column("kl_share", "KL share", "%", rank=6),
    )
    records: list[dict[str, Any]] = changed.to_dict("records")  # type: ignore[assignment]
    rows = [
        (
            Cell(str(place + 1), place + 1),
            Cell(row["layer"], row["layer"], words=True, head=True),
            Cell(row["kind"], row["kind"], words=True),
            Cell(row["shape"], row["shape"], words=True),
            _count(row["rank"]),
            _count(row["units"]),
            _count(row["parameters"]),
            _share(row["parameters"] / (row["parameters_before"] or math.nan), 1),
            _share(row["discarded"], 2),
            _share(row["kl_share"], 1),
        )
        for place, row in enumerate(records)
    ]
    return Table(columns, tuple(rows))


def _count(value: Any) -> Cell:
    return Cell("–", "") if pd.isna(value) else Cell(f"{value:,}", float(value))


def _share(value: float, places: int) -> Cell:
    return Cell(f"{100 * value:.{places}f}", float(value)) if math.isfinite(value) else Cell("–", "")
