"""`CollapseCurve`: the metric against rank for every layer, as a table, on disk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ketwork._compat import moved
from ketwork.quantum import Estimate
from ketwork.records import Count, Malformed, Presented, check_source, read, write

SCHEMA = 2
"""The version of the file format; files of a newer one are refused."""

DEFINITIONS: dict[str, str] = {
    "rank": "number of leading eigenstates of the layer's state that its output is projected onto",
    "share": "rank / d",
    "weight": "Σλ of these eigenstates: the explained variance of the layer's vectors",
    "value": "the metric of the network that continues from there",
    "change": "value less that of the original network, with the standard error of the samples' differences",
    "keeps": "whether the change is within the tolerance",
}


@dataclass(frozen=True)
class CurvePoint:
    """The metric at one rank; `weight` is the share of the state that so many eigenstates hold."""

    rank: Count
    weight: float
    value: Estimate
    change: Estimate
    keeps: bool


@dataclass(frozen=True)
class LayerCurve:
    """One layer at one of its calls: its points by rank, the last one the original network, of rank d."""

    name: str
    call: int
    kind: str
    d: Count
    points: tuple[CurvePoint, ...]

    def check(self) -> None:
        """Ranks rise up to d."""
        ranks = [point.rank for point in self.points]
        rising = all(low < high for low, high in itertools.pairwise([0, *ranks]))
        if not ranks or not rising or ranks[-1] != self.d:
            raise Malformed(f"a curve of {self.d} features must have points of rising ranks up to it")

    @property
    def label(self) -> str:
        """Its name, with the number of the call where it is not the first."""
        return self.name if self.call <= 0 else f"{self.name} (call {self.call + 1})"

    @property
    def smallest(self) -> CurvePoint:
        """The point of least rank from which on every measured rank keeps the metric."""
        smallest = self.points[-1]
        for point in reversed(self.points):
            if not point.keeps:
                break
            smallest = point
        return smallest


@dataclass(frozen=True, eq=False)
class CollapseCurve(Presented):
    """The metric against rank for every layer, collapsed one at a time, in order of execution.

    `original` is the metric of the network as it is, `passes` how many times the data went through the network.
    """

    layers: tuple[LayerCurve, ...]
    metric: str
    original: Estimate
    tolerance: float
    samples: Count
    passes: Count
    settings: dict[str, Any]
    skipped: dict[str, str]

    def check(self) -> None:
        """Settings say which way the metric is better."""
        better, distance = self.settings.get("better"), self.settings.get("to_original")
        if (
            better not in (1, -1)
            or not isinstance(distance, bool)
            or not isinstance(self.settings.get("model"), str)
        ):
            raise Malformed("settings must name the model, and say which way the metric is better")
        check_source(self.settings)

    def described(self, **settings: Any) -> CollapseCurve:
        """The same curve with more settings."""
        return replace(self, settings=self.settings | settings)

    @property
    def untouched(self) -> Estimate:
        """`original`, under its name of version 0.1; warns."""
        moved("`CollapseCurve.untouched` is now called `original`.")
        return self.original

    @property
    def definitions(self) -> dict[str, str]:
        """What each column means."""
        return DEFINITIONS

    @property
    def criterion(self) -> str:
        """What `keeps` means, in words."""
        if self.settings["to_original"]:
            return f"{self.label} ≤ {self.tolerance:g}"
        side = "≥" if self.settings["better"] > 0 else "≤"
        return f"{self.label} {side} {self.limit:.4g}, within {100 * self.tolerance:.3g} % of the original network's"

    @property
    def label(self) -> str:
        """The metric with its unit."""
        return {"kl": "KL (nats)", "loss": "loss (nats)"}.get(self.metric, self.metric)

    @property
    def limit(self) -> float:
        """The value of the metric at which a rank just keeps it."""
        if self.settings["to_original"]:
            return self.tolerance
        value = self.original.value
        return value - self.settings["better"] * self.tolerance * abs(value)

    def table(self) -> pd.DataFrame:
        """One row a layer and rank measured; `definitions` says what the columns mean."""
        return _frame([(layer, point) for layer in self.layers for point in layer.points])

    def smallest(self) -> pd.DataFrame:
        """One row a layer: the smallest rank that keeps the metric, as far as measured, and the metric there."""
        return _frame([(layer, layer.smallest) for layer in self.layers]).drop(columns="keeps")

    def save(self, path: str | Path) -> None:
        """Writes the curves to one safetensors file; replaces the file in one step."""
        write(path, "collapse curve", SCHEMA, self)

    @classmethod
    def load(cls, path: str | Path) -> CollapseCurve:
        """Reads the curves that `save` wrote, also by version 0.1.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a collapse curve, damaged, or written by a newer ketwork.
        """
        return read(cls, path, "collapse curve", SCHEMA, upgraded)

    def __repr__(self) -> str:
        parts = pd.DataFrame(
            {
                "layer": [layer.label for layer in self.layers],
                "d": [layer.d for layer in self.layers],
                "rank": [layer.smallest.rank for layer in self.layers],
                "weight": [f"{layer.smallest.weight:.4f}" for layer in self.layers],
                self.metric: [str(layer.smallest.value) for layer in self.layers],
                "change": [str(layer.smallest.change) for layer in self.layers],
            }
        )
        return (
            f"Collapse curve of {self.settings['model']}: {len(self.layers)} layers, N = {self.samples} samples, "
            f"{self.passes} forward passes\nSmallest rank for which {self.criterion}:\n{parts.to_string(index=False)}"
        )


def _frame(rows: Sequence[tuple[LayerCurve, CurvePoint]]) -> pd.DataFrame:
    records = [
        {
            "layer": layer.name,
            "call": layer.call,
            "kind": layer.kind,
            "d": layer.d,
            "rank": point.rank,
            "share": point.rank / layer.d,
            "weight": point.weight,
            "value": point.value.value,
            "value_stderr": point.value.stderr,
            "change": point.change.value,
            "change_stderr": point.change.stderr,
            "keeps": point.keeps,
        }
        for layer, point in rows
    ]
    return pd.DataFrame(records)


def upgraded(
    schema: int, header: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of schema 1 in those of schema 2, where the points stand in the header."""

    def number(x: float) -> float | None:
        return None if math.isnan(x) else x

    layers = []
    for i, layer in enumerate(header["layers"]):
        points = [
            {
                "rank": int(rank),
                "weight": weight,
                "value": [number(value), number(stderr)],
                "change": [number(change), number(change_stderr)],
                "keeps": bool(keeps),
            }
            for rank, weight, value, stderr, change, change_stderr, keeps in tensors[f"{i}"].tolist()
        ]
        layers.append(layer | {"points": points})
    settings = dict(header["settings"])
    settings["to_original"] = settings.pop("to_untouched")
    original = [number(x) for x in tensors["untouched"].tolist()]
    return header | {"layers": layers, "settings": settings, "original": original}, {}
