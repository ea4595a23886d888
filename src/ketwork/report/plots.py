"""Records as matplotlib pictures, for papers and notebooks; each draws into `ax` and returns it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ketwork.networks.comparison.result import Comparison
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.result import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED = 40  # more names than this run into each other


def plot_study(study: Study, quantity: str = "effective_rank", ax: Axes | None = None) -> Axes:
    """The axes with a quantity of each layer along the depth, ± one standard error where it has one.

    `quantity` is one of `study.quantities`. Layers without a value are gaps.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
        ValueError: the study has no such quantity.
    """
    known = {q.name: q for q in study.quantities}
    if quantity not in known:
        raise ValueError(f"Argument `quantity` must be one of {', '.join(known)}, but is {quantity!r}.")
    ax = _axes(ax)
    table = study.table()
    places = np.arange(len(table))
    values = table[quantity].to_numpy(float)
    errors = table[f"{quantity}_se"].to_numpy(float) if f"{quantity}_se" in table else np.zeros_like(values)
    ax.errorbar(places, values, yerr=np.nan_to_num(errors), marker="o", markersize=4, capsize=2, linewidth=1)
    step = max(1, -(-len(table) // _NAMED))
    names = [name if call < 1 else f"{name} ({call + 1})" for name, call in table[["layer", "call"]].values]
    ax.set_xticks(places[::step], names[::step], rotation=45, ha="right")
    unit = known[quantity].unit
    ax.set_ylabel(quantity.replace("_", " ") + (f" ({unit})" if unit else ""))
    return ax


def plot_spectrum(
    layers: Layer | Iterable[Layer], ax: Axes | None = None, *, discarded: bool = False
) -> Axes:
    """The axes with the eigenvalues of the states of one or several layers against their rank, both logarithmic.

    With `discarded`, the weight 1 − Σ λ that cutting after each rank discards. A layer without a state is left out.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
    """
    ax = _axes(ax)
    for layer in [layers] if isinstance(layers, Layer) else layers:
        if math.isnan(layer.estimates["entropy"].value):
            continue
        values = layer.density.spectrum().cpu().numpy()
        if discarded:
            values = values[::-1].cumsum()[::-1] - values
        shown = values > 1e-12
        ax.plot(1 + np.flatnonzero(shown), values[shown], marker=".", linewidth=1, label=layer.name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("rank kept" if discarded else "rank")
    ax.set_ylabel("discarded weight 1 − Σλ" if discarded else "eigenvalue λ")
    if ax.lines:
        ax.legend(frameon=False)
    return ax


def plot_comparison(comparison: Comparison, measure: str | None = None, ax: Axes | None = None) -> Axes:
    """The axes with one measure of every pair of layers, as `comparison.plot` draws it."""
    return comparison.plot(_axes(ax), measure)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("Plots need matplotlib. Install it with `pip install 'ketwork[plot]'`.") from error
    _, ax = pyplot.subplots(layout="constrained")
    return ax
