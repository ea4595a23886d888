"""`ketwork report`: a saved study, comparison, collapse curve or detector as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ketwork.cli import options
from ketwork.cli.console import Quiet, one_line_errors
from ketwork.cli.files import PAGE, OldOutput, out_option, outputs
from ketwork.cli.loading import finished, load
from ketwork.cli.writing import write_report
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.detection import Detector
from ketwork.networks.study import Study

HELP = "Example: `ketwork report study.safetensors --out study.html`"


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What `ketwork study`, `compare`, `collapse` or `detect` saved."),
    ],
    out: Annotated[list[Path] | None, out_option(PAGE, what=" Default: beside FILE.")] = None,
    output: OldOutput = None,
    with_command: options.WithCommand = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a saved study, comparison, collapse curve or detector as one HTML page that needs no network."""
    with one_line_errors(debug):
        files = outputs(out, PAGE, output=output)
        if files.page is None:
            files = outputs([path.with_suffix(".html")], PAGE)
        target = files.page
        assert target is not None
        record = finished(load(path, Study, Comparison, CollapseCurve, Detector))
        if isinstance(record, Study):
            write_report(record, target, with_command)
        else:
            record.report(target, with_command=with_command)
        files.say()
