"""`ketwork show`: a saved study, comparison or collapse curve, printed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ketwork.cli import options
from ketwork.cli.collapse import print_curve
from ketwork.cli.compare import print_comparison
from ketwork.cli.console import UsageError, one_line_errors
from ketwork.cli.study import print_study
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.study import Study

Record = Study | Comparison | CollapseCurve

HELP = "Example: `ketwork show study.safetensors`"


def command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="What `ketwork study`, `ketwork compare` or `ketwork collapse` saved."
        ),
    ],
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print a saved study, comparison or collapse curve again."""
    with one_line_errors(debug):
        record = load(path, Study, Comparison, CollapseCurve)
        if isinstance(record, Study):
            print_study(record, as_json_)
        elif isinstance(record, CollapseCurve):
            print_curve(record, as_json_)
        else:
            print_comparison(record, as_json_)


def load(path: Path, *kinds: type[Record]) -> Record:
    """The record in a file, which must be of one of these kinds."""
    errors = []
    for kind in kinds:
        try:
            return kind.load(path)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    raise UsageError(errors[0])
