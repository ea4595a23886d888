"""How long pairs of layers are compared, and what is said of those that were not reached."""

from __future__ import annotations

from ketwork.networks.measures import Effort, Similarities
from ketwork.networks.runtime import PAIRS, Background, Stage


def effort_of(background: Background | None, seconds: float | None, parts: int = 1) -> Effort:
    """The effort of one of several parts of work, which share the `seconds`."""
    seconds = None if seconds is None else seconds / parts
    if background is None:
        return Effort(seconds)

    def on_pair(done: int, total: int) -> None:
        background.report(Stage(PAIRS, done, total, done / total))

    return Effort(seconds, lambda: background.stopped, on_pair)


def missing_pairs(similar: Similarities, seconds: float | None) -> str | None:
    """Which pairs were not computed, in words; None where all were."""
    if len(similar.pairs) == similar.total:
        return None
    pairs = f"{len(similar.pairs):,} of {similar.total:,} pairs of layers"
    if seconds is None:
        return (
            f"{pairs} were compared before it was interrupted, the nearest first; the others are missing (–)."
        )
    return (
        f"{pairs} were compared in the {seconds:g} s that were given to them, the nearest first; the others are "
        "missing (–). `compare=True` (--compare) compares all."
    )
