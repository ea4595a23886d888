"""How the command speaks: errors in one line with an exit code, and progress on a terminal."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

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
from ketwork.networks.runtime import (
    CheckpointError,
    Interrupted,
    PartialError,
    ProcessError,
    Stage,
    with_notes,
)
from ketwork.records import terminable, visible
from ketwork.sources import SourceError

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143

CALLED: ContextVar[typer.Context | None] = ContextVar("called", default=None)
"""The command that runs, with its options as they were given."""

_OPTIONS = {"max_samples": "samples", "n_samples": "samples"}
"""Arguments of functions that options call otherwise."""

_NOT_OPTIONS = ("model", "other", "data", "label")
"""Of these the contents were wrong, not the option."""

PAUSE = 30.0
"""Seconds between two lines of progress, where there is no terminal."""

_PIPE_WIDTH = 140  # what goes to a file or a pipe has no width of its own


class UsageError(ValueError):
    """Arguments that do not go together, or a file that is not what the command needs."""


def report_files(written: dict[str, Path | None]) -> None:
    """Says on stderr which files were written, those that were."""
    for label, path in written.items():
        if path is not None:
            note(f"{label} {path}")


def note(message: str) -> None:
    """Prints a remark in one line on stderr, unless --quiet was given."""
    Console(stderr=True, quiet=quiet()).print(
        message, style="dim", highlight=False, markup=False, soft_wrap=True
    )


def quiet() -> bool:
    """Whether the command was given --quiet."""
    context = CALLED.get()
    return context is not None and bool(context.meta.get("quiet"))


def _be_quiet(context: typer.Context, wanted: bool) -> bool:
    context.meta["quiet"] = wanted
    return wanted


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        is_eager=True,
        expose_value=False,
        callback=_be_quiet,
        help="Print errors alone, and what --json or --csv print.",
        rich_help_panel="Printing",
    ),
]


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
        option = None if misused else _refused_option(error)
        if option is not None:
            misused, error.args = True, (option,)
        complain(str(error) if misused else message_of(error))
        raise typer.Exit(MISUSED if misused else FAILED) from error


def end_partial(ended: PartialError | Interrupted, number: str, save: Path | None, more: str = "") -> None:
    """Ends a command with the right exit code where its result is that of so many samples alone."""
    kept = f"saved to {save}" if save is not None else "not saved: no --out with .safetensors was given"
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
    words = with_notes(error)
    return words if _raised_here(error) else f"{type(error).__name__}: {words}".removesuffix(": ")


def _refused_option(error: Exception) -> str | None:
    """The words of an error about an argument that was given as an option, with the option's name; None of others."""
    match = re.match(r"Argument `(\w+)`", str(error))
    context = CALLED.get()
    if match is None or context is None or not isinstance(error, ValueError) or not _raised_here(error):
        return None
    given = {parameter.name: parameter for parameter in context.command.params}
    name = _OPTIONS.get(match[1], match[1])
    if name in _NOT_OPTIONS or name not in given:
        return None
    source = context.get_parameter_source(name)
    if source is None or source.name != "COMMANDLINE":
        return None
    return str(error).replace(match[0], max(given[name].opts, key=len), 1)


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


class Lines:
    """A line every half minute, for logs and notebooks: what is done, how fast, and the time left."""

    def __init__(self, total: int | None) -> None:
        self._total, self._name, self._began = total, "", 0.0
        self._last = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Says how many samples have gone by."""
        total = self._total if total is None else total
        self._say(
            "samples", f"{done:,}/{'?' if total is None else f'{total:,}'}", done / total if total else None
        )

    def stage(self, stage: Stage) -> None:
        """Says how far a stage is."""
        self._say(stage.name, f"{stage.done}/{stage.total}", stage.share)

    def _say(self, name: str, words: str, share: float | None) -> None:
        now = time.monotonic()
        if name != self._name:
            self._name, self._began = name, min(now, self._last)
        if now - self._last < PAUSE:
            return
        self._last = now
        gone = now - self._began
        left = f", about {_clock(gone * (1 - share) / share)} left" if share else ""
        print(f"ketwork: {name} {words} after {_clock(gone)}{left}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> _clock(75.2), _clock(3725)
    ('1:15', '1:02:05')
    """
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")


@contextmanager
def progress_bar(total: int | None) -> Iterator[Bars | Lines | None]:
    """What to call with the number of samples done: a bar on stderr, or, where that is no terminal, a line at times."""
    console = Console(stderr=True)
    if quiet():
        yield None
        return
    if not console.is_terminal:
        yield Lines(total)
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
    """The terminal, or a pipe, wide enough for complete tables; with --quiet it prints nothing."""
    console = Console(stderr=stderr, quiet=quiet())
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(stderr=stderr, width=_PIPE_WIDTH, quiet=quiet())
    return console
