"""The command: `study` reads a network as a quantum system, `compare` says how alike layers are, `collapse` how many
eigenstates they need, `detect` which samples are unlike the data studied, `compress` makes it smaller, `monitor` shows
a training run, `ground` finds ground states; `report` makes a page of what was saved, `show` prints it; `doctor` says
what is installed, and whether it works.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from ketwork._version import __version__
from ketwork.cli import (
    collapse,
    compare,
    compress,
    detect,
    doctor,
    ground,
    monitor,
    options,
    pages,
    show,
    study,
)
from ketwork.networks.runtime import left_behind

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: **ketwork study** (a demonstration, with nothing to download)",
    rich_markup_mode="markdown",
)


def main() -> None:
    """The console entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ρ and ± still gets its numbers
    try:
        app(prog_name="ketwork")
    except SystemExit as over:
        if left_behind():  # the end of the interpreter would wait for it
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(over.code if isinstance(over.code, int) else 1)
        raise


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


for _name, _module in (
    ("study", study),
    ("compare", compare),
    ("collapse", collapse),
    ("compress", compress),
    ("detect", detect),
    ("monitor", monitor),
    ("ground", ground),
    ("show", show),
    ("report", pages),
    ("doctor", doctor),
):
    app.command(_name, cls=options.Recorded, epilog=_module.HELP)(_module.command)
