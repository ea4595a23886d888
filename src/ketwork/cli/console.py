"""How the command speaks: errors in one line with an exit code, and progress on a terminal."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ketwork.networks.activations import SelectorError
from ketwork.networks.runtime import CheckpointError, Interrupted, PartialError, ProcessError, Stage
from ketwork.records import terminable, visible
from ketwork.sources import SourceError

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143

_PIPE_WIDTH = 140  # what goes to a file or a pipe has no width of its own


class UsageError(ValueError):
    """Arguments that do not go together, or a file that is not what the command needs."""


def report_files(written: dict[str, Path | None]) -> None:
    """Says on stderr which files were written, those that were."""
    for label, path in written.items():
        if path is not None:
            Console(stderr=True).print(
                f"{label} {path}", style="dim", highlight=False, markup=False, soft_wrap=True
            )


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turns what goes wrong into one line on stderr and an exit code; SIGTERM ends a command as Ctrl-C does."""
    with terminable() as heard:
        try:
            with _one_line_errors(debug):
                yield
        except typer.Exit as over:
            if heard and over.exit_code == INTERRUPTED:
                raise typer.Exit(TERMINATED) from over
            raise


@contextmanager
def _one_line_errors(debug: bool) -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError as error:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        complain("interrupted before there was anything to show or save.")
        raise typer.Exit(INTERRUPTED) from error
    except SystemExit as error:  # of a model's or data's own code: the command would end as if all were well
        if isinstance(error.__context__, BrokenPipeError):  # Rich's way to say so
            raise typer.Exit(FAILED) from error
        if debug:
            traceback.print_exception(error)
        complain(
            f"the code of the model or of the data called sys.exit({error.code!r}), before there was anything to "
            "show or save."
        )
        raise typer.Exit(FAILED) from error
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        misused = isinstance(error, UsageError | SourceError | SelectorError | CheckpointError)
        complain(str(error) if misused else message_of(error))
        raise typer.Exit(MISUSED if misused else FAILED) from error


def end_partial(ended: PartialError | Interrupted, number: str, save: Path | None, more: str = "") -> None:
    """Ends a command with the right exit code where its result is that of so many samples alone."""
    kept = f"saved to {save}" if save is not None else "not saved: no --save was given"
    kept = f"What {number} before it gave is shown, and {kept}.{more}"
    if isinstance(ended, Interrupted):
        complain(f"interrupted. {kept}")
        raise typer.Exit(INTERRUPTED)
    cause = (
        ended.__cause__
        if isinstance(ended.__cause__, Exception) and not isinstance(ended, ProcessError)
        else ended
    )
    raise RuntimeError(f"{message_of(cause).rstrip('.')}. {kept}") from cause


def message_of(error: BaseException) -> str:
    """The error in words, with its type where the words alone would not tell."""
    words = str(error)
    return words if _raised_here(error) else f"{type(error).__name__}: {words}".removesuffix(": ")


def _raised_here(error: BaseException) -> bool:
    """Whether the library itself raised the error, so that its words are complete sentences."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("ketwork.")


def complain(message: str) -> None:
    """Prints an error in one line on stderr."""
    line = visible(" ".join(message.split()))
    Console(stderr=True).print(f"ketwork: {line}", style="red", highlight=False, markup=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Samples a second."""
        speed = None if task.description != "samples" else task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="dim")


class Bars:
    """A bar of the samples of a pass, and one for each stage after it, with the time left."""

    def __init__(self, bars: Progress, total: int | None) -> None:
        self._bars, self._total = bars, total
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, done: int) -> None:
        """Shows how many samples have gone by."""
        task = self._task("samples", self._total)
        self._bars.update(task, completed=done, words=f"{done}/{'?' if self._total is None else self._total}")

    def stage(self, stage: Stage) -> None:
        """Shows how far a stage is: its bar is of time."""
        words = f"{stage.done}/{stage.total}"
        self._bars.update(self._task(stage.name, 1.0), completed=stage.share, words=words)

    def _task(self, name: str, total: float | None) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, words="")
        return self._tasks[name]


@contextmanager
def progress_bar(total: int | None) -> Iterator[Bars | None]:
    """What to call with the number of samples done: draws a bar on stderr, only where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        _Rate(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        yield Bars(bar, total)


def wide_console(stderr: bool = False) -> Console:
    """The terminal, or a pipe, wide enough for complete tables."""
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(stderr=stderr, width=_PIPE_WIDTH)
    return console
