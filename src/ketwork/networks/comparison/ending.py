"""The end of a comparison: what a pass gathered becomes a record, also where it is interrupted on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from ketwork.networks.comparison.accumulator import ComparisonAccumulator
from ketwork.networks.comparison.result import FEWEST, Comparison
from ketwork.networks.comparison.weights import WeightChange
from ketwork.networks.runtime import GRACE, Background, Ending, Stage, interruptible


def compared(
    gathered: ComparisonAccumulator,
    ending: Ending,
    settings: dict[str, Any],
    measures: Collection[str] | None,
    center: bool,
    on_stage: Callable[[Stage], None],
    weigh: Callable[[Callable[[], bool]], tuple[WeightChange, ...]],
    reason: str | None = None,
) -> tuple[Comparison | None, Ending]:
    """The comparison of what was gathered (None of too little): after Ctrl-C with the pairs that a second gives.

    `weigh` gives the changes of weights, those that it reaches before it is to stop.
    """
    if gathered.pairs.n < FEWEST:
        return None, ending
    made: list[Comparison] = []

    def work(background: Background) -> None:
        made.append(gathered.comparison(settings, measures, center, reason or ending.reason, background))
        weights = weigh(lambda: background.stopped)
        if not background.stopped:
            made.append(replace(made[0], weights=weights))

    if not interruptible(work, on_stage, GRACE if ending.interrupted else None):
        ending = replace(ending, interrupted=True)
    return made[-1] if made else None, ending
