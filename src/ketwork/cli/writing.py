"""What a command writes at its end: files that no signal tears, and pages that one ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ketwork.cli.console import progress_bar
from ketwork.networks.comparison import Comparison
from ketwork.networks.runtime import Background, Interrupted, PartialError, interruptible
from ketwork.networks.study import Study
from ketwork.records import deferred

Ended = PartialError | Interrupted | None


def concluded(
    record: Study | Comparison,
    ended: Ended,
    *,
    save: Callable[[], None] | None,
    report: Path | None,
    with_command: bool = False,
    show: Callable[[], None],
) -> Ended:
    """Saves a record, writes its page and shows it; returns how the command ended, which Ctrl-C may have changed.

    Signals wait while the record is saved. One that came, then or before, leaves the page out, and the record is shown.
    """
    try:
        try:
            if save is not None:
                with deferred():
                    save()
            if report is not None and not isinstance(ended, Interrupted):
                write_report(record, report, with_command)
        except KeyboardInterrupt:
            ended = Interrupted("interrupted", record)
        finally:
            show()
    except KeyboardInterrupt:  # while it was shown
        ended = Interrupted("interrupted", record)
    return ended


def write_report(record: Study | Comparison, path: Path, with_command: bool = False) -> None:
    """Writes the page of a record, with a bar on a terminal; `with_command` it shows the command line.

    Raises:
        Interrupted: on Ctrl-C and SIGTERM; there is no page then, and `partial` is the record.
    """
    with progress_bar(None) as bar:

        def work(background: Background) -> None:
            def on_stage(stage: Any) -> None:
                if background.stopped:
                    raise KeyboardInterrupt
                background.report(stage)

            if isinstance(record, Study):
                record.report(path, on_stage=on_stage, with_command=with_command)
            else:
                record.report(path, with_command=with_command)

        if not interruptible(work, lambda stage: None if bar is None else bar.stage(stage)):
            raise Interrupted("interrupted while its page was written", record)


def left_to_do(record: Study | Comparison, save: Path | None, report: Path | None) -> str:
    """What was not done when a command was interrupted, and which command does it."""
    words = ""
    if isinstance(record, Study) and not record.finished:
        left = sum(not layer.finished for layer in record)
        what = f"The numbers of {left} of {len(record)} layers" if left else "The comparison of the layers"
        words += f" {what} had not been computed" + (
            "." if save is None else f": `ketwork show {save}` does."
        )
    if report is not None:
        words += " The page was not written"
        words += "." if save is None else f": `ketwork report {save} --out {report}` does."
    return words
