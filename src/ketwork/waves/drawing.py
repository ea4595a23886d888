"""A run as a picture: the energy step by step with its error, and the exact value (extra `plot`)."""

from collections.abc import Sequence
from pathlib import Path

from ketwork.report.figures import blank, write
from ketwork.waves.ground_state import Step


def draw(history: Sequence[Step], path: str | Path, *, title: str = "", exact: float | None = None) -> None:
    """Draws the energies of a run to a file (SVG, PNG, PDF, by its suffix).

    The vertical range is that of the last three quarters: the fall from the random start would flatten the rest.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no steps, or a suffix that matplotlib does not write.
    """
    if not history:
        raise ValueError("Argument `history` must have at least one step, but has none.")
    figure = blank(path)
    steps = [step.index for step in history]
    lower = [step.energy.mean - step.energy.error for step in history]
    upper = [step.energy.mean + step.energy.error for step in history]
    late = slice(len(history) // 4, None)
    seen = [*lower[late], *upper[late], *([] if exact is None else [exact])]
    pad = 0.06 * (max(seen) - min(seen)) or 1e-3 * abs(max(seen)) or 1e-9

    ax = figure.subplots()
    ax.fill_between(steps, lower, upper, alpha=0.25, linewidth=0)
    ax.plot(steps, [step.energy.mean for step in history], label="mean ± standard error")
    if exact is not None:
        ax.axhline(exact, color="C3", linestyle="--", linewidth=1, label=f"exact {exact:.8g}")
    ax.set(title=title, xlabel="step", ylabel="energy", ylim=(min(seen) - pad, max(seen) + pad))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.legend(loc="upper right", frameon=False)
    write(figure, path)
