"""`ketwork monitor`: a training run as a monitor saw it, in the terminal or as a page, also while it goes on."""

from __future__ import annotations

import json
import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ketwork.cli import options
from ketwork.cli.console import UsageError, one_line_errors, report_files, wide_console
from ketwork.networks.monitor import MonitorRun
from ketwork.report import monitor_as_json, render_monitor

HELP = """Examples:

- `ketwork monitor ketwork-run/`

- `ketwork monitor ketwork-run/ --output run.html --follow`

- `ketwork monitor runs/new/ --other runs/old/ --output both.html --open`
"""

_PAUSE = 10.0


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The folder of a `kw.Monitor` (its `path`), or its .jsonl file."),
    ],
    other: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run, beside the first one on the page.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write the run as one HTML page that needs no network."
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Write the page again after each look, until the training ends or Ctrl-C."
        ),
    ] = False,
    open_: Annotated[
        bool,
        typer.Option(
            "--open", help="Open the page in a browser. Default page: in the folder, as monitor.html."
        ),
    ] = False,
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show a training run: each layer's quantities over the steps, and the alarms."""
    with one_line_errors(debug):
        run = _load(path)
        beside = None if other is None else _load(other)
        if output is None and (open_ or follow):
            output = (path if path.is_dir() else path.parent) / "monitor.html"
        if other is not None and output is None:
            raise UsageError("--other needs --output or --open: two runs stand beside each other on a page.")
        options.check_targets(None, output, "--output")
        if as_json_:
            print(json.dumps(monitor_as_json(run), indent=1, ensure_ascii=False, allow_nan=False), flush=True)
        else:
            render_monitor(run, wide_console())
        if output is None:
            return
        run.report(output, other=beside)
        report_files({"Report written to": output})
        if open_:
            webbrowser.open(output.resolve().as_uri())
        if follow:
            _follow(path, run, output, beside)


def _load(path: Path) -> MonitorRun:
    try:
        return MonitorRun.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _follow(path: Path, run: MonitorRun, output: Path, other: MonitorRun | None) -> None:
    """Writes the page after each look; a page that goes on loads itself again."""
    console = Console(stderr=True)
    try:
        while not run.ended:
            time.sleep(_PAUSE)
            latest = _load(path)
            if (latest.steps, latest.ended) != (run.steps, run.ended):
                latest.report(output, other=other)
                console.print(
                    f"Step {latest.steps[-1]:,}: {len(latest.alarms)} alarms", style="dim", highlight=False
                )
            run = latest
    except KeyboardInterrupt:
        return
