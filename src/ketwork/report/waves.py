"""A run of variational Monte Carlo as a picture and as a page: the energy step by step, and the exact value."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ketwork.records import presents, undirected, write_text
from ketwork.report.figures import blank
from ketwork.waves import Run, Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }}
h1 {{ font-size: 1.4rem; }} table {{ border-collapse: collapse; }} svg {{ max-width: 100%; height: auto; }}
th {{ text-align: left; font-weight: 600; padding: .2rem 1.5rem .2rem 0; vertical-align: top; }} td {{ padding: .2rem
0; }} </style></head><body><main><h1>{title}</h1> <table>{rows}</table> {picture} <p>σ² is the variance of the local
energy, 0 at an eigenstate; τ the autocorrelation time in kept samples; R̂ is 1 where chains agree; the V-score is
N·σ²/(E − E∞)².</p></main></body></html>
"""


@presents(Run, "plot")
def plot_run(run: Run, ax: Axes | None = None, *, title: str = "", exact: float | None = None) -> Axes:
    """The axes with the energies of a run step by step, ± one standard error, and the exact value where it is known.

    `exact` takes the place of the run's own.
    """
    if not run.history:
        raise ValueError("Argument `run` must have at least one step, but has none.")
    axes = blank("run.svg").subplots() if ax is None else ax
    _curve(axes, run.history, title, run.exact if exact is None else exact)
    return axes


@presents(Run, "page")
def write_run(run: Run, path: str | Path, *, title: str = "A run of variational Monte Carlo") -> Path:
    """Writes the run as one HTML file with its numbers and its picture, and returns the path."""
    picture = io.StringIO()
    figure = blank("run.svg")
    plot_run(run, figure.subplots())
    figure.savefig(picture, format="svg")
    svg = picture.getvalue()
    rows = "".join(
        f"<tr><th scope='row'>{name}</th><td>{html.escape(value)}</td></tr>"
        for name, value in run.summary().items()
        if value
    )
    page = _PAGE.format(title=html.escape(title), rows=rows, picture=svg[svg.index("<svg") :])
    write_text(path, undirected(page))
    return Path(path)


def _curve(ax: Axes, history: Sequence[Step], title: str, exact: float | None) -> None:
    """The vertical range is that of the last three quarters: the fall from the random start would flatten the rest."""
    steps = [step.index for step in history]
    lower = [step.energy.value - step.energy.stderr for step in history]
    upper = [step.energy.value + step.energy.stderr for step in history]
    late = slice(len(history) // 4, None)
    seen = [*lower[late], *upper[late], *([] if exact is None else [exact])]
    pad = 0.06 * (max(seen) - min(seen)) or 1e-3 * abs(max(seen)) or 1e-9
    ax.fill_between(steps, lower, upper, alpha=0.25, linewidth=0)
    ax.plot(steps, [step.energy.value for step in history], label="mean ± standard error")
    if exact is not None:
        ax.axhline(exact, color="C3", linestyle="--", linewidth=1, label=f"exact {exact:.8g}")
    ax.set(title=title, xlabel="step", ylabel="energy", ylim=(min(seen) - pad, max(seen) + pad))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.legend(loc="upper right", frameon=False)
