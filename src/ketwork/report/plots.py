"""Results as matplotlib pictures, for papers and notebooks; each draws into `ax` and returns it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.detection import Detector
from ketwork.networks.measures import PAIR_MEASURES
from ketwork.networks.measures import discarded as discarded_by
from ketwork.networks.study import Layer, Study
from ketwork.records import presents
from ketwork.report.changes import plot_changes
from ketwork.report.histograms import score_histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_TICKS = 40  # more names than this run into each other
_MOST_NUMBERS = 8  # in a matrix of more layers than this numbers would overlap
_MOST_LEGEND = 12  # more layers than this get a scale of colors instead of a legend


@presents(Study, "plot")
def plot_study(study: Study, quantity: str = "effective_rank", ax: Axes | None = None) -> Axes:
    """The axes with a measure of each layer along the depth, ± one standard error where it has one.

    `quantity` is one of `study.measures`. Layers without a value are gaps.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
        ValueError: the study has no such measure.
    """
    known = {measure.name: measure for measure in study.measures}
    if quantity not in known:
        raise ValueError(f"Argument `quantity` must be one of {', '.join(known)}, but is {quantity!r}.")
    ax = axes_of(ax)
    estimates = [layer.estimate(quantity) for layer in study]
    errors = np.nan_to_num([estimate.stderr for estimate in estimates])
    places = np.arange(len(estimates))
    values = np.array([estimate.value for estimate in estimates])
    ax.errorbar(places, values, yerr=errors, marker="o", markersize=4, capsize=2, linewidth=1)
    step = max(1, -(-len(estimates) // _MOST_TICKS))
    names = [layer.info.label for layer in study]
    ax.set_xticks(places[::step], names[::step], rotation=45, ha="right")
    unit = known[quantity].unit
    ax.set_ylabel(known[quantity].title + (f" ({unit})" if unit else ""))
    return ax


@presents(Layer, "plot")
def plot_spectrum(
    layers: Layer | Iterable[Layer], ax: Axes | None = None, *, discarded: bool = False
) -> Axes:
    """The axes with the eigenvalues of the states of one or several layers against their rank, both logarithmic.

    With `discarded`, the variance 1 − Σ λ that cutting after each rank discards. A layer without a state is skipped.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
    """
    ax = axes_of(ax)
    for layer in [layers] if isinstance(layers, Layer) else layers:
        if math.isnan(layer.estimate("entropy")):
            continue
        spectrum = layer.spectrum()
        values = (discarded_by(spectrum) if discarded else spectrum).cpu().numpy()
        above = values > 1e-12
        ax.plot(1 + np.flatnonzero(above), values[above], marker=".", linewidth=1, label=layer.name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("rank kept" if discarded else "rank")
    ax.set_ylabel("discarded variance 1 − Σλ" if discarded else "eigenvalue λ")
    if ax.lines:
        ax.legend(frameon=False)
    return ax


@presents(Comparison, "plot")
def plot_comparison(comparison: Comparison, measure: str | None = None, ax: Axes | None = None) -> Axes:
    """The axes with one measure of every pair of layers, rows from the top; of few layers the numbers ± stand in it.

    `measure="changes"`: of two models, the layers of one name over depth, and the relative change of their weights.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
        ValueError: the comparison has no such measure.
    """
    measure = measure or comparison.measures[0]
    if measure == "changes":
        return plot_changes(comparison, axes_of(ax))
    matrix = comparison.matrix(measure)
    ax = axes_of(ax)
    top = math.pi / 2 if PAIR_MEASURES[measure].distance_of else 1.0
    image = ax.imshow(matrix.numpy(), vmin=0, vmax=top, cmap="viridis", interpolation="nearest")
    for axis, layers in ((ax.yaxis, comparison.rows), (ax.xaxis, comparison.columns)):
        step = max(1, -(-len(layers) // _MOST_TICKS))
        axis.set_ticks(range(0, len(layers), step), [layer.name for layer in layers[::step]], fontsize=7)
    ax.tick_params(axis="x", rotation=90)
    ax.set_ylabel(comparison.settings["model"])
    ax.set_xlabel(comparison.settings["other"])
    if max(len(comparison.rows), len(comparison.columns)) <= _MOST_NUMBERS:
        _write_numbers(ax, comparison, measure, top)
    unit = "positions" if comparison.settings.get("unit") == "position" else "samples"
    ax.set_title(f"{PAIR_MEASURES[measure].title}, N = {comparison.n} {unit}")
    if ax.figure is not None:
        ax.figure.colorbar(image, ax=ax)
    return ax


def _write_numbers(ax: Axes, comparison: Comparison, measure: str, top: float) -> None:
    """Writes each pair's value into its cell, ± its standard error where it has one."""
    for i in range(len(comparison.rows)):
        for j in range(len(comparison.columns)):
            estimate = comparison.estimate(measure, i, j)
            if math.isnan(estimate):
                continue
            text = f"{estimate.value:.2f}"
            if math.isfinite(estimate.stderr):
                text += f"\n± {estimate.stderr:.2g}"
            color = "black" if estimate.value > top / 2 else "white"
            ax.text(j, i, text, ha="center", va="center", fontsize=6, color=color)


@presents(CollapseCurve, "plot")
def plot_curve(curve: CollapseCurve, ax: Axes | None = None) -> Axes:
    """The axes with the curves, a ring at each layer's smallest rank.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
    """
    ax = axes_of(ax)
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    log = curve.settings["to_original"]
    depth = Normalize(0, max(len(curve.layers) - 1, 1))
    scale = ScalarMappable(depth, colormaps["viridis"].with_extremes())
    for i, layer in enumerate(curve.layers):
        points = [p for p in layer.points if not log or p.value > 0]
        if not points:
            continue
        color = scale.to_rgba(np.array([0.92 * i]))[0]
        ranks, values = [p.rank for p in points], [p.value.value for p in points]
        errors = np.nan_to_num([p.value.stderr for p in points])
        low = np.minimum(errors, np.array(values) * 0.999) if log else errors
        ax.errorbar(
            ranks,
            values,
            [low, errors],
            color=color,
            marker=".",
            linewidth=1,
            elinewidth=0.6,
            label=layer.label,
        )
        best = layer.smallest
        if not log or best.value > 0:
            ax.plot(best.rank, best.value.value, "o", color=color, fillstyle="none", markersize=8)
    ax.axhline(curve.limit, color="0.4", linestyle="--", linewidth=1)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda rank, _: f"{rank:g}")
    if log:
        ax.set_yscale("log")
    ax.set_xlabel("rank kept")
    ax.set_ylabel("KL from the original network (nats)" if log else curve.label)
    if len(curve.layers) <= _MOST_LEGEND:
        ax.legend(frameon=False, fontsize=8)
    elif ax.figure is not None:
        ax.figure.colorbar(scale, ax=ax, label="layer, in order of execution")
    return ax


@presents(Detector, "plot")
def plot_detector(
    detector: Detector, ax: Axes | None = None, *, scores: Any = None, alpha: float = 0.05
) -> Axes:
    """The axes with a histogram of the calibration samples' scores, of scored samples, and the threshold of alarms.

    `scores` is what `Detector.score` returned.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
    """
    ax = axes_of(ax)
    for part in score_histograms(detector, scores):
        ax.stairs(part.shares, part.edges, fill=True, alpha=0.5, label=f"{part.name} (N = {part.n})")
    if math.isfinite(threshold := detector.threshold(alpha)):
        ax.axvline(threshold, color="0.4", linestyle="--", linewidth=1)
    ax.set_xlabel("score: unlike the data studied →")
    ax.set_ylabel("share of the samples")
    ax.legend(frameon=False, fontsize=8)
    return ax


def axes_of(ax: Axes | None) -> Axes:
    """The axes to draw into: the given ones, or new ones.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("Plots need matplotlib. Install it with `pip install 'ketwork[plot]'`.") from error
    _, ax = pyplot.subplots(layout="constrained")
    return ax
