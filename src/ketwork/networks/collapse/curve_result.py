"""What a collapse curve found: the metric against rank for every layer, as a table, as a picture, on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ketwork.quantum import Estimate
from ketwork.records import storage
from ketwork.records.checked import Count, Malformed, check, check_tensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA = 1
"""The version of the file format; files of a newer one are refused."""

DEFINITIONS: dict[str, str] = {
    "rank": "number of leading eigenstates of the layer's state that its output is projected onto",
    "share": "rank / d",
    "weight": "Σλ of these eigenstates: the share of the state that they hold",
    "value": "the metric of the network that goes on from there",
    "change": "value less that of the untouched network, with the standard error of the samples' differences",
    "keeps": "whether the change is within the tolerance",
}

_LAYER = {"name": str, "call": int, "kind": str, "d": Count}
_HEADER = {
    "layers": [_LAYER],
    "metric": str,
    "tolerance": float,
    "samples": Count,
    "passes": Count,
    "settings": {"model": str, "better": (1, -1), "to_untouched": bool},
    "skipped": {str: str},
}
_NAMED = 12  # more layers than this get a scale of colours instead of a legend


@dataclass(frozen=True)
class CurvePoint:
    """The metric at one rank; `weight` is the share of the state that so many eigenstates hold."""

    rank: int
    weight: float
    value: Estimate
    change: Estimate
    keeps: bool


@dataclass(frozen=True)
class LayerCurve:
    """One layer at one of its calls: its points by rank, the last one the untouched network, of rank d."""

    name: str
    call: int
    kind: str
    d: int
    points: tuple[CurvePoint, ...]

    @property
    def smallest(self) -> CurvePoint:
        """The point of least rank from which on every measured rank keeps the metric."""
        found = self.points[-1]
        for point in reversed(self.points):
            if not point.keeps:
                break
            found = point
        return found


@dataclass(frozen=True, eq=False)
class CollapseCurve:
    """The metric against rank for every layer, collapsed one at a time, in order of execution.

    `untouched` is the metric of the network as it is, `passes` how many times the data went through the network.
    """

    layers: tuple[LayerCurve, ...]
    metric: str
    untouched: Estimate
    tolerance: float
    samples: int
    passes: int
    settings: dict[str, Any]
    skipped: dict[str, str]

    @property
    def definitions(self) -> dict[str, str]:
        """What each column means."""
        return DEFINITIONS

    @property
    def criterion(self) -> str:
        """What `keeps` means, in words."""
        if self.settings["to_untouched"]:
            return f"{self.label} ≤ {self.tolerance:g}"
        side = "≥" if self.settings["better"] > 0 else "≤"
        return f"{self.label} {side} {self.limit:.4g}, within {100 * self.tolerance:.3g} % of the untouched network's"

    @property
    def label(self) -> str:
        """The metric with its unit."""
        return {"kl": "KL (nats)", "loss": "loss (nats)"}.get(self.metric, self.metric)

    @property
    def limit(self) -> float:
        """The value of the metric at which a rank just keeps it."""
        if self.settings["to_untouched"]:
            return self.tolerance
        value = self.untouched.value
        return value - self.settings["better"] * self.tolerance * abs(value)

    def table(self) -> pd.DataFrame:
        """One row a layer and rank measured; `definitions` says what the columns mean."""
        return _frame([(layer, point) for layer in self.layers for point in layer.points])

    def smallest(self) -> pd.DataFrame:
        """One row a layer: the smallest rank that keeps the metric, as far as measured, and the metric there."""
        return _frame([(layer, layer.smallest) for layer in self.layers]).drop(columns="keeps")

    def plot(self, ax: Axes | None = None) -> Axes:
        """A picture of the curves, a ring at each layer's smallest rank; returns the matplotlib axes.

        Raises:
            ImportError: matplotlib is missing.
        """
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError(
                    "Plots need matplotlib. Install it with `pip install 'ketwork[plot]'`."
                ) from error
            _, ax = pyplot.subplots(layout="constrained")
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        log = self.settings["to_untouched"]
        depth = Normalize(0, max(len(self.layers) - 1, 1))
        scale = ScalarMappable(depth, colormaps["viridis"].with_extremes())
        for i, layer in enumerate(self.layers):
            points = [p for p in layer.points if not log or p.value.value > 0]
            if not points:
                continue
            name = layer.name if layer.call <= 0 else f"{layer.name} ({layer.call + 1})"
            colour = scale.to_rgba(np.array([0.92 * i]))[0]
            ranks, values = [p.rank for p in points], [p.value.value for p in points]
            errors = np.nan_to_num([p.value.stderr for p in points])
            low = np.minimum(errors, np.array(values) * 0.999) if log else errors
            ax.errorbar(
                ranks,
                values,
                [low, errors],
                color=colour,
                marker=".",
                linewidth=1,
                elinewidth=0.6,
                label=name,
            )
            best = layer.smallest
            if not log or best.value.value > 0:
                ax.plot(best.rank, best.value.value, "o", color=colour, fillstyle="none", markersize=8)
        ax.axhline(self.limit, color="0.4", linestyle="--", linewidth=1)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda rank, _: f"{rank:g}")
        if log:
            ax.set_yscale("log")
        ax.set_xlabel("rank kept")
        ax.set_ylabel("KL to the untouched network (nats)" if log else self.label)
        if len(self.layers) <= _NAMED:
            ax.legend(frameon=False, fontsize=8)
        elif ax.figure is not None:
            ax.figure.colorbar(scale, ax=ax, label="layer, in order of execution")
        return ax

    def save(self, path: str | Path) -> None:
        """Writes the curves to one safetensors file; replaces the file in one step."""
        header = {
            "layers": [
                {name: getattr(layer, name) for name in ("name", "call", "kind", "d")}
                for layer in self.layers
            ],
            "metric": self.metric,
            "tolerance": self.tolerance,
            "samples": self.samples,
            "passes": self.passes,
            "settings": self.settings,
            "skipped": self.skipped,
        }
        tensors = {f"{i}": _packed(layer.points) for i, layer in enumerate(self.layers)}
        tensors["untouched"] = torch.tensor(
            (self.untouched.value, self.untouched.stderr), dtype=torch.float64
        )
        storage.write(Path(path), "collapse curve", SCHEMA, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> CollapseCurve:
        """Reads the curves that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a collapse curve, truncated, or written by a newer ketwork.
        """
        tensors, header = storage.read(Path(path), "collapse curve", SCHEMA)
        try:
            check(header, _HEADER, "collapse curve")
            check(header["settings"].get("source", {}), {str: dict}, "source")
            check_tensors(tensors, {"two": 2}, untouched="value two")
            layers = tuple(
                LayerCurve(
                    **{name: layer[name] for name in _LAYER}, points=_unpacked(tensors, f"{i}", layer["d"])
                )
                for i, layer in enumerate(header["layers"])
            )
        except Malformed as error:
            raise ValueError(
                f"Argument `path` must be a saved collapse curve, but {str(path)!r} lacks a part of one "
                f"({error}). Save it again."
            ) from error
        rest = {n: header[n] for n in ("metric", "tolerance", "samples", "passes", "settings", "skipped")}
        return cls(layers=layers, untouched=Estimate(*tensors["untouched"].tolist()), **rest)

    def __repr__(self) -> str:
        shown = pd.DataFrame(
            {
                "layer": [
                    layer.name if layer.call <= 0 else f"{layer.name} ({layer.call + 1})"
                    for layer in self.layers
                ],
                "d": [layer.d for layer in self.layers],
                "rank": [layer.smallest.rank for layer in self.layers],
                "weight": [f"{layer.smallest.weight:.4f}" for layer in self.layers],
                self.metric: [str(layer.smallest.value) for layer in self.layers],
                "change": [str(layer.smallest.change) for layer in self.layers],
            }
        )
        return (
            f"Collapse curve of {self.settings['model']}: {len(self.layers)} layers, N = {self.samples} samples, "
            f"{self.passes} forward passes\nSmallest rank for which {self.criterion}:\n{shown.to_string(index=False)}"
        )


def _frame(rows: Sequence[tuple[LayerCurve, CurvePoint]]) -> pd.DataFrame:
    found = [
        {
            "layer": layer.name,
            "call": layer.call,
            "kind": layer.kind,
            "d": layer.d,
            "rank": point.rank,
            "share": point.rank / layer.d,
            "weight": point.weight,
            "value": point.value.value,
            "value_se": point.value.stderr,
            "change": point.change.value,
            "change_se": point.change.stderr,
            "keeps": point.keeps,
        }
        for layer, point in rows
    ]
    return pd.DataFrame(found)


def _packed(points: tuple[CurvePoint, ...]) -> Tensor:
    rows = [
        (p.rank, p.weight, p.value.value, p.value.stderr, p.change.value, p.change.stderr, p.keeps)
        for p in points
    ]
    return torch.tensor(rows, dtype=torch.float64)


def _unpacked(tensors: dict[str, Tensor], name: str, d: int) -> tuple[CurvePoint, ...]:
    check_tensors(tensors, {"columns": 7}, **{name: "value points columns"})
    rows = tensors[name]
    ranks = rows[:, 0].tolist()
    rising = all(low < high for low, high in zip([0, *ranks], ranks, strict=False))
    if not ranks or not rising or ranks[-1] != d or any(rank != rank // 1 for rank in ranks):
        raise Malformed(f"tensor {name!r} must hold points of rising ranks up to {d}")
    return tuple(
        CurvePoint(int(rank), weight, Estimate(value, se), Estimate(change, change_se), bool(keeps))
        for rank, weight, value, se, change, change_se, keeps in rows.tolist()
    )
