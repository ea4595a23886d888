"""What a report shows of one layer beyond its row: its spectrum, its labels' confusion, its two leading eigenstates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.activations import Part, parts_of
from ketwork.networks.measures import MEASURES, DecodedLabels, LeadingPlane, discarded
from ketwork.networks.study import Layer, Study
from ketwork.quantum import Estimate
from ketwork.report.words import measured

_MOST_RANKS = 48
_MOST_LABELS = 30
_MOST_CONFUSIONS = 20


@dataclass(frozen=True, eq=False)
class View:
    """A layer as a page shows it: its place along the depth (from 0), its label, its row, and its spectrum (r,).

    `plane` is the layer in the plane of its leading eigenstates, `part` where it stands in a transformer.
    """

    place: int
    label: str
    layer: Layer
    spectrum: Tensor
    plane: LeadingPlane | None
    label_names: tuple[str, ...] | None = None
    part: Part | None = None

    def __getitem__(self, measure: str) -> Estimate:
        needs = MEASURES[measure].needs
        if needs != "layer" and measure not in self.layer.estimates:
            return Estimate()
        return self.layer.estimate(measure)

    def has(self, *measures: str) -> bool:
        """Whether the layer has a value of each."""
        return all(math.isfinite(self[measure]) for measure in measures)

    def words(self, measure: str) -> str:
        """A measure in words, ± its standard error, shares in per cent."""
        return measured(MEASURES[measure], self[measure])

    @property
    def few_samples(self) -> bool:
        """Whether its numbers are limited by the data."""
        return self.layer.few_samples

    @property
    def discarded(self) -> Tensor:
        """1 − Σ λ of the k largest eigenvalues, (r,), for k = 1 … r."""
        return discarded(self.spectrum)

    @property
    def dead_neurons(self) -> int:
        """How many neurons were exactly 0 on every ket."""
        return round(self["dead"].value * self.layer.d)

    @property
    def confusion(self) -> dict[str, Any] | None:
        """Counts on held-out samples by readout: the full matrix of up to 30 labels, else the commonest errors."""
        known = self.layer.labels
        if known is None or not known.confusion:
            return None
        names, order = label_order(known, self.label_names)
        labels = [names[i] for i in order]
        counts = {kind: matrix[order][:, order] for kind, matrix in sorted(known.confusion.items())}
        if len(labels) <= _MOST_LABELS:
            return {"labels": labels, "counts": {kind: matrix.tolist() for kind, matrix in counts.items()}}
        return {"worst": {kind: _worst(matrix, labels) for kind, matrix in counts.items()}}

    def ranks(self) -> list[int]:
        """The ranks that a picture of the spectrum shows: all of few, else spaced by equal factors."""
        r = len(self.spectrum)
        if r <= _MOST_RANKS:
            return list(range(1, r + 1))
        return sorted({round(r ** (i / (_MOST_RANKS - 1))) for i in range(_MOST_RANKS)})


def layer_views(study: Study) -> Iterator[View]:
    """A view of each layer. Cost: one decomposition a layer, O(min(d, N)² d)."""
    data = study.settings.get("source", {}).get("data", {})
    names = tuple(data["label_names"]) if data.get("label_names") else None
    parts = parts_of([layer.info for layer in study])
    for place, (layer, part) in enumerate(zip(study, parts, strict=True)):
        label = layer.info.label or study.settings.get("model", "network")
        if layer.finished:
            yield View(place, label, layer, layer.leading.values, layer.plane, names, part)
        else:
            yield View(place, label, layer, torch.zeros(0, dtype=torch.float64), None, names, part)


def neighbours(rows: Sequence[View]) -> list[tuple[View, View]]:
    """Layers that follow each other and are of one kind: with the same positions of samples, and in a transformer of
    the same part and role in the next block."""
    chains: dict[tuple[str, str], list[View]] = {}
    for row in rows:
        if row.part is not None:
            chains.setdefault((row.part.name, row.part.role), []).append(row)
    pairs = [pair for chain in chains.values() or [list(rows)] for pair in itertools.pairwise(chain)]
    return [pair for pair in pairs if same_positions(*pair)]


def same_positions(a: View, b: View) -> bool:
    """Whether two layers have as many positions of each sample, so that one can stand for the other."""
    return math.isclose(a.layer.positions_per_sample, b.layer.positions_per_sample, rel_tol=1e-9)


def blocks_in_line(rows: Sequence[View]) -> list[tuple[View, View]]:
    """Modules that hold others of the rows, `blocks.1`, and the one before them in their list, `blocks.0`."""
    names = {row.layer.name: row for row in rows}
    pairs = []
    for name, row in names.items():
        stem, _, number = name.rpartition(".")
        before = (
            names.get(f"{stem}.{int(number) - 1}" if stem else str(int(number) - 1))
            if number.isdecimal()
            else None
        )
        if before is not None and any(other.startswith(f"{name}.") for other in names):
            pairs.append((before, row))
    return pairs


def label_order(known: DecodedLabels, label_names: tuple[str, ...] | None) -> tuple[list[str], list[int]]:
    """The labels' names in the order of their codes, and the codes in the order of a reader."""
    names = list(known.names)
    numbers = all(isinstance(name, int | float) for name in names)
    order = sorted(range(len(names)), key=lambda code: names[code] if numbers else str(names[code]))
    if label_names and all(isinstance(name, int) and 0 <= name < len(label_names) for name in names):
        names = [label_names[name] for name in names]
    return [str(name) for name in names], order


def _worst(matrix: Tensor, labels: list[str]) -> list[dict[str, Any]]:
    wrong = matrix.clone()
    wrong.fill_diagonal_(0)
    counts, places = wrong.flatten().topk(min(_MOST_CONFUSIONS, wrong.numel()))
    k = len(labels)
    return [
        {"label": labels[place // k], "read": labels[place % k], "count": int(count)}
        for count, place in zip(counts, places.tolist(), strict=True)
        if count > 0
    ]
