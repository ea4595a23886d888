"""`--out`: the files that a command writes, each of the form that its ending names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from ketwork.cli.console import UsageError, note, report_files
from ketwork.records import writable, write_text
from ketwork.report import blank, ready, write

RECORD, PAGE, TABLE, NUMBERS, PLOT, ONNX = "record", "page", "table", "numbers", "plot", "ONNX file"
ENDINGS = {
    ".safetensors": RECORD,
    ".html": PAGE,
    ".csv": TABLE,
    ".json": NUMBERS,
    ".svg": PLOT,
    ".png": PLOT,
    ".pdf": PLOT,
    ".onnx": ONNX,
}
"""What an ending of a file stands for."""

_SAID = {
    RECORD: "Saved to",
    PAGE: "Report written to",
    TABLE: "Table written to",
    NUMBERS: "Numbers written to",
    PLOT: "Drawn to",
    ONNX: "ONNX file written to",
}
OLD = {"save": RECORD, "report": PAGE, "output": PAGE, "plot": PLOT, "record": NUMBERS}
"""What `--out` was called before, by what it wrote."""


def out_option(*kinds: str, what: str = "") -> Any:
    """The option `--out` of a command that writes files of these kinds."""
    endings = [f"{' '.join(e for e, k in ENDINGS.items() if k == kind)} ({kind})" for kind in kinds]
    return typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help=f"Write a file, by its ending: {', '.join(endings)}. Repeatable.{what}",
        show_default=False,
        rich_help_panel="Printing",
    )


OldSave = Annotated[Path | None, typer.Option("--save", hidden=True)]
OldReport = Annotated[Path | None, typer.Option("--report", hidden=True)]
OldPlot = Annotated[Path | None, typer.Option("--plot", hidden=True)]
OldRecord = Annotated[Path | None, typer.Option("--record", hidden=True)]
OldOutput = Annotated[Path | None, typer.Option("--output", hidden=True)]


@dataclass
class Outputs:
    """The files to write, by kind."""

    paths: dict[str, Path] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    @property
    def record(self) -> Path | None:
        """Where the record goes."""
        return self.paths.get(RECORD)

    @property
    def page(self) -> Path | None:
        """Where the page goes."""
        return self.paths.get(PAGE)

    def write_tables(self, table: Callable[[], pd.DataFrame], numbers: Callable[[], Any]) -> None:
        """Writes the table as CSV, and all numbers as JSON, where they are wanted."""
        if TABLE in self.paths:
            write_text(self.paths[TABLE], table().to_csv(index=False))
        if NUMBERS in self.paths:
            text = json.dumps(numbers(), indent=1, ensure_ascii=False, allow_nan=False)
            write_text(self.paths[NUMBERS], text + "\n")

    def draw(self, plot: Callable[..., Any], **options: Any) -> None:
        """Draws the plot, where it is wanted; `plot` takes the axes as `ax`."""
        if PLOT in self.paths:
            figure = blank(self.paths[PLOT])
            plot(ax=figure.subplots(), **options)
            write(figure, self.paths[PLOT])

    def say(self, without: tuple[str, ...] = (), **said: str) -> None:
        """Says which files were written, but those `without`; `said` replaces the words of a kind."""
        words = _SAID | said
        report_files({words[kind]: path for kind, path in self.paths.items() if kind not in without})


def outputs(given: list[Path] | None, *kinds: str, **old: Path | None) -> Outputs:
    """The files that `--out` and its old names want, checked before the work is done.

    Raises:
        UsageError: an ending is none that the command writes, two are of one kind, a folder is missing, or what
            writes pages or plots is not installed.
    """
    result = Outputs()
    for path in given or ():
        kind = ENDINGS.get(path.suffix.lower())
        if kind not in kinds:
            known = ", ".join(f"{e} ({k})" for e, k in ENDINGS.items() if k in kinds)
            raise UsageError(f"--out must end in one of {known}, but was {str(path)!r}.")
        _add(result, kind, "--out", path)
    for name, value in old.items():
        if value is not None:
            note(f"--{name} is now --out, which goes by the file's ending: --out {value}")
            _add(result, OLD[name], f"--{name}", value)
    if PAGE in result.paths:
        ready()
    if PLOT in result.paths:
        try:
            blank(result.paths[PLOT])
        except (ImportError, ValueError) as error:
            raise UsageError(str(error)) from error
    return result


def _add(result: Outputs, kind: str, option: str, path: Path) -> None:
    if kind in result.paths:
        raise UsageError(f"{option} names two files of one kind ({kind}): {result.paths[kind]} and {path}.")
    check_target(option, path)
    result.paths[kind] = path


def check_target(option: str, path: Path | None) -> None:
    """Whether the file that an option names can be written."""
    if path is not None and not writable(path):
        raise UsageError(
            f"{option} must name a file in a folder that can be written to, but was {str(path)!r}."
        )
