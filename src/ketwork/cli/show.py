"""`ketwork show`: what any command saved, printed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console

from ketwork.cli import options, printing
from ketwork.cli.collapse import print_curve
from ketwork.cli.compare import print_comparison
from ketwork.cli.compress import print_compressed
from ketwork.cli.console import Quiet, one_line_errors
from ketwork.cli.detect import print_detection
from ketwork.cli.loading import finished, load_any
from ketwork.cli.monitor import print_run
from ketwork.cli.study import print_study
from ketwork.networks.collapse import CollapseCurve
from ketwork.networks.comparison import Comparison
from ketwork.networks.compression import Compressed
from ketwork.networks.detection import Detector
from ketwork.networks.monitor import MonitorRun
from ketwork.networks.study import Study

HELP = """Examples:

- `ketwork show study.safetensors`

- `ketwork show study.safetensors --columns layer,entropy,dead --sort -entropy`
"""


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What another command saved, or the folder of a monitored run."),
    ],
    columns: printing.Columns = None,
    sort: printing.Sort = None,
    csv: printing.Csv = False,
    as_json_: printing.Json = False,
    explain: printing.Explain = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Print again what a command saved: a study, comparison, collapse curve, detector, network or run of training."""
    with one_line_errors(debug):
        show = printing.Printing(columns, sort, csv, as_json_, explain)
        show.check()
        match record := finished(load_any(path)):
            case Study():
                print_study(record, show)
            case Comparison():
                print_comparison(record, show)
            case CollapseCurve():
                print_curve(record, show)
            case Detector():
                print_detection(record, None, 0.05, show)
            case Compressed():
                print_compressed(record, show)
            case MonitorRun():
                print_run(record, show)
            case steps:
                _print_steps(steps, show)


def _print_steps(steps: list[Any], show: printing.Printing) -> None:
    """Prints the steps of a run of `ketwork ground`."""

    def table() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "step": step.index,
                "energy": step.energy.value,
                "energy_stderr": step.energy.stderr,
                "variance": step.energy.variance,
                "acceptance": step.acceptance,
                "seconds": step.seconds,
            }
            for step in steps
        )

    def render(console: Console, explain: bool) -> None:
        seconds = sum(step.seconds for step in steps)
        console.print(f"Ground-state run of {len(steps):,} steps in {seconds:.1f} s", highlight=False)
        if steps:
            console.print(f"E = {steps[-1].energy} at the last step", style="bold", highlight=False)
        console.print("--csv prints every step.", style="dim")

    show.show(render, table, lambda: printing.records(table()))
