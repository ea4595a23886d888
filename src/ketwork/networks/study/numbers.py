"""The numbers of a study, computed once its pass is over, in steps between which they can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ketwork.networks.activations import Key
from ketwork.networks.comparison import FEWEST, ComparedLayer, Comparison
from ketwork.networks.measures import in_threads
from ketwork.networks.moments import UNITS, LayerAccumulator
from ketwork.networks.runtime import LAYERS, Background, Stage, interruptible
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.layer import Layer

OnStage = Callable[[Stage], None]


@dataclass
class Numbers:
    """The layers whose numbers are computed, by key, and the comparison of all, where the pass kept what it takes."""

    layers: dict[Key, Layer] = field(default_factory=dict)
    comparison: Comparison | None = None

    def of(self, gathered: StudyAccumulator, center: bool) -> tuple[Layer, ...]:
        """All layers in order; those whose numbers were not computed are unfinished."""
        return tuple(
            self.layers.get(row.info.key) or Layer.unfinished(row, center, gathered.normalize)
            for row in gathered.rows
        )


def comparable(gathered: StudyAccumulator) -> bool:
    """Whether the pass kept what comparing its layers takes."""
    return gathered.pairs is not None and gathered.pairs.n >= FEWEST


def compute(
    gathered: StudyAccumulator,
    settings: dict[str, Any],
    skipped: dict[str, str],
    numbers: Numbers,
    on_stage: OnStage,
    seconds: float | None,
) -> bool:
    """Computes those of the `numbers` that are missing; False where it was interrupted, or its `seconds` were over.

    Cost: O(d³) a layer at most, and an eigenvalue problem a pair.
    """

    def work(background: Background) -> None:
        _layers(gathered, settings, numbers, background)
        if numbers.comparison is None and comparable(gathered) and not background.stopped:
            comparison = _compared(gathered, settings, skipped, background)
            if not background.stopped:
                numbers.comparison = comparison

    interruptible(work, on_stage, seconds)
    complete = len(numbers.layers) == len(gathered.rows)
    return complete and (numbers.comparison is not None or not comparable(gathered))


def _layers(
    gathered: StudyAccumulator, settings: Mapping[str, Any], numbers: Numbers, background: Background
) -> None:
    names, task = tuple(gathered.labels.names), gathered.labels.task
    rows, center, exact = gathered.rows, bool(settings["center"]), bool(settings.get("exact"))
    todo = [row for row in rows if row.info.key not in numbers.layers]
    total, done = sum(map(_cost, todo)), 0.0

    def compute(row: LayerAccumulator) -> Layer | None:
        if background.stopped:
            return None
        return Layer.from_accumulator(row, center, gathered.normalize, names, task, exact)

    at_once = None if gathered.plan is None else 1  # a budget is for the work on one layer at a time
    if background.limited:
        todo.sort(key=_cost)  # as many as the time allows
    elif at_once is None and torch.get_num_threads() > 1:
        todo.sort(key=_cost, reverse=True)  # else one thread works on a long one that came last, alone
    for row, layer in zip(todo, in_threads(compute, todo, at_once), strict=True):
        if layer is None or background.stopped:
            return
        numbers.layers[row.info.key] = layer
        done += _cost(row)
        background.report(Stage(LAYERS, len(numbers.layers), len(rows), done / total))


def _cost(row: LayerAccumulator) -> float:
    """How long a layer takes, in any unit: a decomposition on the smaller side, and what is linear in the features."""
    rank = row.kets if row.moment.sketch is None else 2 * row.moment.sketch.rank
    side = min(row.d, rank)
    return 1.0 + row.d * side**2 + 1e3 * row.d


def _compared(
    gathered: StudyAccumulator, settings: dict[str, Any], skipped: dict[str, str], background: Background
) -> Comparison:
    """The comparison of the layers with each other."""
    assert gathered.pairs is not None
    named: dict[Hashable, ComparedLayer] = {
        row.info.key: ComparedLayer.from_info(row.info, row.d) for row in gathered.layers
    }
    # As `compare` does it by default, whatever weighs the kets of the study itself.
    how = {"other": settings["model"], "unit": UNITS[0], "normalize": "ensemble", "center": True}
    return Comparison.from_pairs(
        gathered.pairs,
        named,
        settings | how,
        skipped,
        background=background,
        seconds=settings.get("pairs_seconds"),
    )
