"""`ketwork monitor`: a training run as a monitor saw it, in the terminal or as a page, also while it goes on."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ketwork.cli import options, printing
from ketwork.cli.console import Quiet, UsageError, one_line_errors
from ketwork.cli.files import NUMBERS, PAGE, TABLE, OldOutput, out_option, outputs
from ketwork.networks.monitor import MonitorRun
from ketwork.report import monitor_as_json, render_monitor

HELP = """Examples:

- `ketwork monitor ketwork-run/`

- `ketwork monitor ketwork-run/ --out run.html --follow`

- `ketwork monitor runs/new/ --other runs/old/ --out both.html --open`
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
    out: Annotated[list[Path] | None, out_option(PAGE, TABLE, NUMBERS)] = None,
    output: OldOutput = None,
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
    with_command: options.WithCommand = False,
    columns: printing.Columns = None,
    sort: printing.Sort = None,
    csv: printing.Csv = False,
    as_json_: printing.Json = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show a training run: each layer's quantities over the steps, and the alarms."""
    with one_line_errors(debug):
        run = _load(path)
        beside = None if other is None else _load(other)
        show = printing.Printing(columns, sort, csv, as_json_)
        show.check()
        files = outputs(out, PAGE, TABLE, NUMBERS, output=output)
        if files.page is None and (open_ or follow):
            files.paths[PAGE] = (path if path.is_dir() else path.parent) / "monitor.html"
        page = files.page
        if other is not None and page is None:
            raise UsageError(
                "--other needs --out with .html, or --open: two runs stand beside each other on a page."
            )
        print_run(run, show)
        files.write_tables(run.long, lambda: monitor_as_json(run))
        if page is not None:
            run.report(page, other=beside, with_command=with_command)
        files.say()
        if page is None:
            return
        if open_:
            webbrowser.open(page.resolve().as_uri())
        if follow:
            _follow(path, run, page, beside, with_command)


def print_run(run: MonitorRun, show: printing.Printing) -> None:
    """Prints a training run as a table, as CSV or as JSON."""

    def render(console: Console, explain: bool) -> None:
        render_monitor(run, console)

    show.show(render, run.long, lambda: monitor_as_json(run))


def _load(path: Path) -> MonitorRun:
    try:
        return MonitorRun.load(path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _follow(path: Path, run: MonitorRun, output: Path, other: MonitorRun | None, with_command: bool) -> None:
    """Writes the page after each look; a page that goes on loads itself again."""
    console = Console(stderr=True)
    try:
        while not run.ended:
            time.sleep(_PAUSE)
            latest = _load(path)
            if (latest.steps, latest.ended) != (run.steps, run.ended):
                latest.report(output, other=other, with_command=with_command)
                console.print(
                    f"Step {latest.steps[-1]:,}: {len(latest.alarms)} alarms", style="dim", highlight=False
                )
            run = latest
    except KeyboardInterrupt:
        return
