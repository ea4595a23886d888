"""The end of a study: what a pass gathered becomes a record, also where it is interrupted on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ketwork.networks.runtime import GRACE, Ending, Interrupted
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.loop import BatchLoop
from ketwork.networks.study.numbers import OnStage
from ketwork.networks.study.result import Study
from ketwork.records import deferred, without_children


def gathered_of(loop: BatchLoop, ending: Ending) -> tuple[StudyAccumulator, Ending]:
    """What the pass gathered, once its last checkpoint is written; Ctrl-C waits for that."""
    result: StudyAccumulator | None = None
    try:
        with without_children(), deferred():
            loop.save()
            result = loop.run.finished(loop.live)
    except KeyboardInterrupt:
        ending = replace(ending, interrupted=True)
        if result is None:
            raise
    return result, ending


def computed(
    gathered: StudyAccumulator,
    ending: Ending,
    settings: dict[str, Any],
    on_stage: OnStage,
    reason: str | None = None,
) -> tuple[Study | None, Ending]:
    """The study of what was gathered (None of nothing): after Ctrl-C with the numbers that a second gives."""
    if not gathered.batches:
        return None, ending
    seconds = GRACE if ending.interrupted else None
    try:
        record = Study.from_accumulator(
            gathered, settings, reason or ending.reason, on_stage, seconds=seconds
        )
    except Interrupted as stopped:
        return stopped.partial, replace(ending, interrupted=True)
    return record, ending
