"""`ketwork show`: a saved study, comparison, collapse curve or detector, printed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ketwork.cli import options
from ketwork.cli.collapse import print_curve
from ketwork.cli.compare import print_comparison
from ketwork.cli.console import one_line_errors
from ketwork.cli.detect import print_detection
from ketwork.cli.loading import finished, load
from ketwork.cli.study import print_study
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.detection import Detector
from ketwork.networks.study import Study

HELP = "Example: `ketwork show study.safetensors`"


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What `ketwork study`, `compare`, `collapse` or `detect` saved."),
    ],
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print a saved study, comparison, collapse curve or detector again."""
    with one_line_errors(debug):
        record = finished(load(path, Study, Comparison, CollapseCurve, Detector))
        if isinstance(record, Study):
            print_study(record, as_json_)
        elif isinstance(record, CollapseCurve):
            print_curve(record, as_json_)
        elif isinstance(record, Detector):
            print_detection(record, None, 0.05, as_json_)
        else:
            print_comparison(record, as_json_)
