"""A training run as a matplotlib picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ketwork.networks.monitor import QUANTITIES, MonitorRun
from ketwork.records import presents
from ketwork.report.plots import axes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LEGEND = 12


@presents(MonitorRun, "plot")
def plot_monitor(run: MonitorRun, quantity: str = "effective_rank", ax: Axes | None = None) -> Axes:
    """The axes with a quantity of each layer over the steps, in bands of one standard error; alarms are dotted lines.

    Raises:
        ImportError: matplotlib is missing (extra `plot`).
        ValueError: the run does not have the quantity.
    """
    if quantity not in run.quantities:
        raise ValueError(
            f"Argument `quantity` must be one of {', '.join(run.quantities) or 'a run that has looks'}, but is "
            f"{quantity!r}."
        )
    ax = axes_of(ax)
    labels = dict.fromkeys(layer.label for look in run.looks for layer in look.layers)
    for label in labels:
        rows = [
            (look.step, layer.values[quantity])
            for look in run.looks
            for layer in look.layers
            if layer.label == label and quantity in layer.values
        ]
        if not rows:
            continue
        steps, values = np.array([step for step, _ in rows]), np.array([each.value for _, each in rows])
        errors = np.nan_to_num([each.stderr for _, each in rows])
        (line,) = ax.plot(steps, values, marker=".", linewidth=1, label=label)
        ax.fill_between(
            steps, values - errors, values + errors, alpha=0.2, color=line.get_color(), linewidth=0
        )
    for alarm in run.alarms:
        ax.axvline(alarm.step, color="0.4", linestyle=":", linewidth=1)
    unit = QUANTITIES[quantity].unit
    ax.set_xlabel("step")
    ax.set_ylabel(QUANTITIES[quantity].title + (f" ({unit})" if unit else ""))
    if 0 < len(labels) <= _MOST_LEGEND:
        ax.legend(frameon=False, fontsize=8)
    return ax
