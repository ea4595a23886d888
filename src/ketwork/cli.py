"""The command: `ketwork study` reads a network as a quantum system, `ketwork show` prints a saved study again."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ketwork import __version__
from ketwork.networks import SelectorError, Study, StudyInterrupted
from ketwork.networks import study as study_network
from ketwork.report import as_json, render
from ketwork.sources import SourceError, load_data, load_model

DEMO_MODEL = "ketwork.demo.digits:model"
DEMO_DATA = "ketwork.demo.digits:held_out"

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
_PIPE_WIDTH = 140  # what goes to a file or a pipe has no width of its own

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: **ketwork study** (a demonstration, with nothing to download)",
    rich_markup_mode="markdown",
)


class Normalize(StrEnum):
    """How kets are weighed."""

    state = "state"
    ensemble = "ensemble"


class Calls(StrEnum):
    """What becomes of a module that is called several times in one forward pass."""

    separate = "separate"
    pooled = "pooled"


class UsageError(ValueError):
    """Arguments that do not go together, or a file that is not what the command needs."""


Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON to stdout, and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")]


def main() -> None:
    """The console entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ρ and ± still gets its numbers
    app(prog_name="ketwork")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ketwork {__version__}")
        raise typer.Exit


@app.callback()
def ketwork(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Reads any trained PyTorch network as a quantum system, in one pass over data."""


@app.command(
    epilog="""Examples:

- `ketwork study`

- `ketwork study nets:build@weights.safetensors --data digits.npz --save study.safetensors`

- `ketwork study path/to/hf-folder --data messages.csv --text text --label spam --layers blocks`
"""
)
def study(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="`package.module:factory` or `file.py:factory`, either with `@weights.safetensors` or "
            "`@weights.pt`; or a Hugging Face model folder. Default: a small network trained on digits.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="An .npz, .npy, .csv, .jsonl or .parquet file, a folder of images with one subfolder a class, "
            "or `package.module:factory` returning batches.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of texts, for the model's tokenizer.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME",
            help="The array of features in an .npz file, or a column of numbers (name or glob, repeatable).",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="NAME", help="The column or array of labels.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="A layer's name or a glob (repeatable), `blocks` or `all`. Default: those a reader would draw.",
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Stop after so many samples.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a batch.")] = 64,
    image_size: Annotated[
        str | None, typer.Option(metavar="N or HxW", help="Resize images to this height and width.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run the network: cpu, cuda, cuda:1, mps.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the samples that standard errors are computed on.")] = 0,
    normalize: Annotated[
        Normalize, typer.Option(help="Kets of weight 1 each, or of their squared norm.")
    ] = Normalize.state,
    center: Annotated[bool, typer.Option("--center", help="Subtract the mean ket.")] = False,
    calls: Annotated[
        Calls, typer.Option(help="A module called repeatedly: a row for each call, or one for all.")
    ] = Calls.separate,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out, and count, samples with NaN or infinite values.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Save the study, states included (safetensors).")
    ] = None,
    as_json_: Json = False,
    debug: Debug = False,
) -> None:
    """Every layer's state over data: dimensions used, coherence, entanglement, with standard errors.

    Without arguments: a small network trained on scikit-learn's digits, on digits it has not seen.
    """
    with _one_line_errors(debug):
        if (model is None) != (data is None):
            missing, given = ("MODEL", "--data") if model is None else ("--data", "MODEL")
            raise UsageError(
                f"{given} needs {missing} beside it. Give both, or neither for the demonstration."
            )
        selectors = _selectors(layers)
        size = _image_size(image_size)
        _check_target(save)
        with redirect_stdout(sys.stderr):  # what a model prints must not get among the numbers
            loaded = load_model(model or DEMO_MODEL, device)
            source = load_data(
                data or DEMO_DATA,
                text=text,
                input=inputs,
                label=label,
                tokenizer=loaded.tokenizer,
                batch_size=batch_size,
                samples=samples,
                image_size=size,
                dtype=loaded.dtype,
                skip_bad=skip_bad,
            )
            try:
                with _progress(source.samples if source.samples is not None else samples) as progress:
                    found = study_network(
                        loaded.model,
                        source.batches,
                        layers=selectors,
                        samples=samples,
                        batch_size=batch_size,
                        normalize=normalize.value,
                        center=center,
                        calls=calls.value,
                        generator=torch.Generator().manual_seed(seed),
                        skip_bad=skip_bad,
                        progress=progress,
                    )
            except StudyInterrupted as interrupt:
                if interrupt.study is None:
                    raise
                found = interrupt.study
        found = replace(
            found,
            settings=found.settings
            | {"seed": seed, "source": {"model": loaded.description, "data": source.description}},
            notes=(*found.notes, *loaded.notes, *source.notes),
        )
        try:
            if save is not None:
                found.save(save)
        finally:
            _show(found, as_json_)
        _end(found, save)


@app.command(epilog="Example: `ketwork show study.safetensors`")
def show(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="A file that `ketwork study --save` wrote.")],
    as_json_: Json = False,
    debug: Debug = False,
) -> None:
    """Print a saved study again."""
    with _one_line_errors(debug):
        try:
            found = Study.load(path)
        except (OSError, ValueError) as error:
            raise UsageError(str(error)) from error
        _show(found, as_json_)


def _show(found: Study, as_json_: bool) -> None:
    if as_json_:
        print(json.dumps(as_json(found), indent=1, ensure_ascii=False, allow_nan=False), flush=True)
        return
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=_PIPE_WIDTH)
    render(found, console)


def _end(found: Study, save: Path | None) -> None:
    """Ends the command with the right exit code where the study is partial."""
    if found.complete:
        if save is not None:
            Console(stderr=True).print(
                f"Saved to {save}", style="dim", highlight=False, markup=False, soft_wrap=True
            )
        return
    kept = f"saved to {save}" if save is not None else "not saved: no --save was given"
    partial = f"What {found.samples} samples before it gave is shown, and {kept}."
    if isinstance(found.error, Exception):
        raise RuntimeError(f"{_said(found.error).rstrip('.')}. {partial}") from found.error
    _complain(f"interrupted. {partial}")
    raise typer.Exit(INTERRUPTED)


def _selectors(given: list[str] | None) -> str | list[str] | None:
    alone = [name for name in given or [] if name in ("all", "blocks")]
    if alone and given != alone[:1]:
        raise UsageError(f"--layers {alone[0]} stands alone, but was given as {given}. Leave the others out.")
    return alone[0] if alone else given or None


def _image_size(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", given)
    if match is None:
        raise UsageError(f"--image-size must be a number of pixels or HEIGHTxWIDTH, but was {given!r}.")
    return int(match[1]), int(match[2] or match[1])


def _check_target(save: Path | None) -> None:
    """Before the work is done, whether its result can be written."""
    if save is None:
        return
    if save.is_dir() or not save.parent.is_dir() or not os.access(save.parent, os.W_OK):
        raise UsageError(
            f"--save must name a file in a folder that can be written to, but was {str(save)!r}."
        )


@contextmanager
def _one_line_errors(debug: bool) -> Iterator[None]:
    """Turns what goes wrong into one line on stderr and an exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError as error:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        _complain("interrupted before the first batch was done; there is nothing to show or save.")
        raise typer.Exit(INTERRUPTED) from error
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        misused = isinstance(error, UsageError | SourceError | SelectorError)
        _complain(str(error) if misused else _said(error))
        raise typer.Exit(MISUSED if misused else FAILED) from error


def _said(error: BaseException) -> str:
    """The error in words, with its type where the words alone would not tell."""
    words = str(error)
    return words if _raised_here(error) else f"{type(error).__name__}: {words}".removesuffix(": ")


def _raised_here(error: BaseException) -> bool:
    """Whether the library itself raised the error, so that its words are whole sentences."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("ketwork.")


def _complain(message: str) -> None:
    line = " ".join(message.split())
    Console(stderr=True).print(f"ketwork: {line}", style="red", highlight=False, markup=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Samples a second."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="dim")


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None] | None]:
    """What to call with the number of samples done: draws a bar on stderr, only where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns: list[Any] = [
        TextColumn("samples"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("samples", total=total)
        yield lambda done: bar.update(task, completed=done)
