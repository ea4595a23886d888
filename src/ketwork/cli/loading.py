"""Saved records of any kind, found by what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ketwork.cli.console import UsageError, progress_bar
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.compression import Compressed
from ketwork.networks.detection import Detector
from ketwork.networks.monitor import MonitorRun
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


def load_any(path: Path) -> Any:
    """What a file or a folder holds, of any kind that ketwork writes; of a ground-state run the list of its steps.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    try:
        if path.is_dir() or path.suffix == ".jsonl":
            return MonitorRun.load(path)
        if _has(path, "ketwork.compressed"):
            return Compressed.load_account(path)
        if _has(path, "ketwork.run") or _has(path, "ketwork.waves"):
            from ketwork.waves import steps_in

            return steps_in(path)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    return load(path, Study, Comparison, CollapseCurve, Detector)


def _has(path: Path, key: str) -> bool:
    """Whether a safetensors file has this key in its metadata."""
    try:
        with safe_open(str(path), "pt") as file:
            return key in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def finished(record: Any) -> Any:
    """The record with all of its numbers, where an interruption left some of a study's out."""
    if not isinstance(record, Study) or record.finished:
        return record
    with progress_bar(None) as bar:
        return record.finish(bar or False)
