"""Pictures in files: an empty one that says before the work what would fail after it, and writing it in one step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ketwork.records import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def blank(path: str | Path) -> Figure:
    """An empty figure that can be written to that file.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: a suffix that matplotlib does not write.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib. Install it with `pip install 'ketwork[plot]'`.") from error
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    if _kind(path) not in kinds:
        raise ValueError(
            f"Argument `plot` must end in one of {', '.join(sorted(kinds))}, but is {str(path)!r}."
        )
    return figure


def write(figure: Figure, path: str | Path) -> None:
    """Writes a figure to a file, SVG, PNG, PDF … by its suffix."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=_kind(path))


def _kind(path: str | Path) -> str:
    return Path(path).suffix.removeprefix(".").lower()
