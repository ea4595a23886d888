"""Saved records of any kind, found by what they are."""

from __future__ import annotations

from pathlib import Path

from ketwork.cli.console import UsageError, progress_bar
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.detection import Detector
from ketwork.networks.study import Study

Record = Study | Comparison | CollapseCurve | Detector


def load(path: Path, *kinds: type[Record]) -> Record:
    """The record in a file, which must be of one of these kinds."""
    errors = []
    for kind in kinds:
        try:
            return kind.load(path)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    raise UsageError(errors[0])


def finished(record: Record) -> Record:
    """The record with all of its numbers, where an interruption left some of a study's out."""
    if not isinstance(record, Study) or record.finished:
        return record
    with progress_bar(None) as bar:
        return record.finish(bar or False)
