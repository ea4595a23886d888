"""What a record shows at a glance: for each question of the report, the layers and numbers that answer it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ketwork.networks.collapse import CollapseCurve, LayerCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.measures import SinkCounts, by_label
from ketwork.networks.study import Study
from ketwork.quantum import Estimate, shannon_entropy
from ketwork.report.views import View, blocks_in_line, label_order, neighbours, same_positions
from ketwork.report.words import short

ALIKE = 0.95
"""Layers that follow each other with at least this CKA are counted as redundant."""

WEIGHTED = ("Linear", "Conv1d", "Conv2d", "Conv3d", "Conv1D", "Embedding", "LSTM", "GRU")
"""Classes of layers with a matrix of weights."""

_COUNTED = 10  # labels whose held-out samples are counted one by one


@dataclass(frozen=True)
class Dimensions:
    """The layer of the largest effective rank, that which uses most of its width, and the largest drop.

    The drop is between layers that follow each other and can be compared, of which there are `pairs`.
    """

    most: View
    widest: View
    fall: tuple[View, View] | None
    pairs: int


@dataclass(frozen=True)
class Labels:
    """The best layer by each of Holevo bits (above chance), pretty good measurement and linear probe.

    `ties` are the layers that each readout cannot tell from its best; `first` is the first layer with readouts, `held`
    how many samples they were scored on, by label, `most` the bits that the labels have: their entropy in the fitting
    part, log₂ K where all are equally frequent.
    """

    first: View
    holevo: View | None
    readouts: dict[str, View]
    ties: dict[str, list[View]]
    held: str
    classes: int
    most: float


@dataclass(frozen=True)
class Cut:
    """The layer of which the smallest share of dimensions carries 99 % of the variance; kept and all dimensions."""

    narrowest: View
    kept: Estimate
    total: int


@dataclass(frozen=True)
class Sinks:
    """The layer whose state sinks hold most of, how much as a measure says it, where they stand, and in how many."""

    most: View
    measure: str
    places: str
    layers: int


@dataclass(frozen=True)
class Shrunk:
    """The layer that a network needs the smallest share of, with its rank; the ranks and widths of all, summed."""

    layer: LayerCurve
    rank: int
    kept: int
    total: int


@dataclass(frozen=True)
class Redundant:
    """Layers that follow each other and are most alike, by the comparison's measure, and the pairs that are alike.

    `alike` has their names and values, the most alike first; `repeated` are those of them of which the second could be
    skipped: it has weights of its own, and as many features as the first.
    """

    measure: str
    first: str
    second: str
    value: Estimate
    alike: list[tuple[str, str, Estimate]]
    pairs: int
    repeated: list[tuple[str, str, Estimate]]


def dimensions(rows: Sequence[View]) -> Dimensions | None:
    """Which layer carries the most dimensions, and where they collapse."""
    known = [row for row in rows if row.has("effective_rank")]
    if not known:
        return None
    most = max(known, key=lambda row: row["effective_rank"].low)
    widest = max(known, key=lambda row: row.layer.rank_share.low)
    pairs = neighbours(known)
    falls = [pair for pair in pairs if _falls(*pair, "effective_rank")]
    fall = min(falls, key=lambda p: p[1]["effective_rank"].value / p[0]["effective_rank"].value, default=None)
    return Dimensions(most, widest, fall, len(pairs))


def labels(study: Study, rows: Sequence[View]) -> Labels | None:
    """What can be decoded of the labels; None where there were none, or nothing to score."""
    read = [row for row in rows if row.layer.labels is not None]
    names = ("linear_balanced", "pgm_balanced", "linear_r2")
    readouts = {
        name: max((row for row in read if row.has(name)), key=lambda row: row[name].value)
        for name in names
        if any(row.has(name) for row in read)
    }
    bits = [row for row in read if row.has("holevo")]
    if not readouts and not bits:
        return None
    holevo = max(bits, key=above_chance, default=None)
    known = (holevo or read[0]).layer.labels
    assert known is not None
    counts = torch.tensor(known.counts, dtype=torch.float64)
    most = float(shannon_entropy(counts / counts.sum())) if holevo else math.nan
    first = next(row for row in read if row.has(*readouts) or row in bits)
    ties = {
        name: [row for row in read if row is not best and tied(row[name], best[name])]
        for name, best in readouts.items()
    }
    titles, order = label_order(known, first.label_names)
    counted = list(known.held_counts.values())
    held = f"{len(known.held_out):,} held-out samples"
    held += by_label({titles[i]: counted[i] for i in order if i < len(counted)}, _COUNTED)
    return Labels(first, holevo, readouts, ties, held, len(known.names), most)


def tied(value: Estimate, best: Estimate) -> bool:
    """Whether a value is no farther below the best than twice the error of their difference, of independent samples.

    The layers' scores are of the same samples, whose errors are shared: differences are surer than this says.
    """
    errors = [each.stderr if math.isfinite(each.stderr) else 0.0 for each in (value, best)]
    return math.isfinite(value) and best.value - value.value <= 2 * math.hypot(*errors)


def above_chance(row: View) -> float:
    """Holevo bits less their chance level (less nothing where that is unknown)."""
    null = row["holevo_null"].value
    return row["holevo"].low - (null if math.isfinite(null) else 0.0)


def cut(rows: Sequence[View]) -> Cut | None:
    """Which layer could be cut most, by the rank that carries 99 % of its variance."""
    known = [row for row in rows if row.has("rank_kept")]
    if not known:
        return None
    narrowest = min(known, key=lambda row: row["rank_kept"].high / row.layer.d)
    low, value, high = (
        sum(getattr(row["rank_kept"], end) for row in known) for end in ("low", "value", "high")
    )
    return Cut(narrowest, Estimate(value, bounds=(low, high)), sum(row.layer.d for row in known))


def shrunk(curve: CollapseCurve) -> Shrunk | None:
    """Which layer a network needs the smallest share of."""
    if not curve.layers:
        return None
    layer = min(curve.layers, key=lambda each: each.smallest.rank / each.d)
    kept = sum(each.smallest.rank for each in curve.layers)
    return Shrunk(layer, layer.smallest.rank, kept, sum(each.d for each in curve.layers))


def aligned(rows: Sequence[View]) -> list[View]:
    """Layers by how nearly their eigenstates are single neurons, the most aligned first."""
    known = [row for row in rows if row.has("coherent_share")]
    return sorted(known, key=lambda row: row["coherent_share"].value)


def dead(rows: Sequence[View]) -> list[View]:
    """Layers that have dead neurons, the most first."""
    return sorted((row for row in rows if row["dead"].value > 0), key=lambda row: -row["dead"].value)


def sinks(study: Study, rows: Sequence[View]) -> Sinks | None:
    """What sinks hold of the layers' states; None where there are none."""
    measure = "sink_weight" if study.settings.get("normalize") == "ensemble" else "sinks"
    known = [row for row in rows if row["sinks"].value > 0]
    if not known:
        return None
    most = max(known, key=lambda row: row[measure].value)
    counts = most.layer.accumulator.sums["sinks"]
    assert isinstance(counts, SinkCounts)
    return Sinks(most, measure, counts.words, len(known))


def positions(study: Study) -> str:
    """Which positions a study read, in words."""
    given = study.settings.get("positions") or "all"
    return {"all": "all positions", "no-sinks": "without sinks"}.get(given, f"positions: {given}")


def readings(study: Study, other: Study) -> tuple[str, str]:
    """What two studies of the same layers are called: by the first of positions, model, data that differs."""
    sources = [each.settings.get("source", {}) for each in (study, other)]
    specs = [
        [short(str(source.get(side, {}).get("spec", ""))) for source in sources] for side in ("model", "data")
    ]
    names = [[positions(each) for each in (study, other)], *specs]
    differing = (pair for pair in names if pair[0] != pair[1] and all(pair))
    first, second = next(differing, ("this study", "the other study"))
    return first, second


def redundant(comparison: Comparison | None, rows: Sequence[View] = ()) -> Redundant | None:
    """Which layers of one model are redundant, among those that follow each other and, by the `rows` of a study, can be
    compared."""
    if comparison is None or not comparison.itself:
        return None
    measure = comparison.measures[0]
    places = {layer.name: i for i, layer in enumerate(comparison.rows)}
    pairs = [(i, i + 1) for i in range(len(places) - 1)]
    if rows:
        near = [*neighbours(rows), *(pair for pair in blocks_in_line(rows) if same_positions(*pair))]
        named = dict.fromkeys((a.layer.name, b.layer.name) for a, b in near)
        pairs = [(places[a], places[b]) for a, b in named if a in places and b in places]
    values = [(comparison.estimate(measure, i, j), comparison.rows[i], comparison.rows[j]) for i, j in pairs]
    values = sorted((each for each in values if math.isfinite(each[0])), key=lambda each: -each[0])
    if not values:
        return None
    value, first, second = values[0]
    alike = [each for each in values if each[0] >= ALIKE]
    return Redundant(
        measure,
        first.name,
        second.name,
        value,
        [(a.name, b.name, value) for value, a, b in alike],
        len(values),
        [(a.name, b.name, value) for value, a, b in alike if a.d == b.d and has_weights(b.kind)],
    )


def has_weights(kind: str) -> bool:
    """Whether a layer of this class has weights of its own, or holds layers that have."""
    return kind in WEIGHTED or (bool(kind) and not hasattr(nn, kind))


def not_compared(study: Study, comparison: Comparison | None) -> dict[str, list[str]]:
    """The layers of a study that its comparison skipped, by reason."""
    reasons: dict[str, list[str]] = {}
    for layer in study.layers if comparison is not None else ():
        if comparison is not None and layer.name in comparison.skipped and layer.name not in study.skipped:
            reasons.setdefault(comparison.skipped[layer.name], []).append(layer.name)
    return reasons


def sides(comparison: Comparison) -> tuple[str, str]:
    """What the two models of a comparison are called: as they were given on the command line, else by their class.

    Where both are called the same, they are A and B.
    """
    settings = comparison.settings
    source = settings.get("source", {})
    first, second = (str(source.get(side, {}).get("spec") or settings[side]) for side in ("model", "other"))
    if first == second and not comparison.itself:
        return f"{first} (A)", f"{second} (B)"
    return first, second


def skipped(record: Any) -> dict[str, list[str]]:
    """The modules that were skipped, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in getattr(record, "skipped", {}).items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def settings(record: Any) -> dict[str, str]:
    """The settings in words as one flat mapping, those inside of others by dotted name, without those that are None."""
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, list | tuple) and any(isinstance(each, dict) for each in value):
            value = value[0] if len(value) == 1 else {i + 1: each for i, each in enumerate(value)}
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(map(str, value))
        elif value is not None:
            flat[name] = f"{value:.6g}" if isinstance(value, float) else str(value)

    add("", {key: value for key, value in record.settings.items() if key != "command"})
    return flat


def _falls(before: View, after: View, quantity: str) -> bool:
    """Whether a quantity falls for certain, and by more than twice the error of the difference."""
    a, b = before[quantity], after[quantity]
    error = math.hypot(*(e.stderr if math.isfinite(e.stderr) else 0.0 for e in (a, b)))
    return a.low - b.high > 2 * error
