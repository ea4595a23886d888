"""`ketwork report`: a saved study, comparison, collapse curve or detector as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ketwork.cli import options
from ketwork.cli.console import one_line_errors, report_files
from ketwork.cli.loading import finished, load
from ketwork.cli.writing import write_report
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.detection import Detector
from ketwork.networks.study import Study

HELP = "Example: `ketwork report study.safetensors -o study.html`"


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What `ketwork study`, `compare`, `collapse` or `detect` saved."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="The page. Default: beside FILE, as .html."),
    ] = None,
    with_command: options.WithCommand = False,
    debug: options.Debug = False,
) -> None:
    """Write a saved study, comparison, collapse curve or detector as one HTML page that needs no network."""
    with one_line_errors(debug):
        target = path.with_suffix(".html") if output is None else output
        options.check_targets(None, target, "--output")
        record = finished(load(path, Study, Comparison, CollapseCurve, Detector))
        if isinstance(record, Study):
            write_report(record, target, with_command)
        else:
            record.report(target, with_command=with_command)
        report_files({"Saved to": None, "Report written to": target})
