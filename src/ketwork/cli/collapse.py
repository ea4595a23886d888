"""`ketwork collapse`: how many leading eigenstates of each layer a network needs to do what it does."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ketwork.cli import options, printing
from ketwork.cli.console import Quiet, UsageError, one_line_errors, progress_bar
from ketwork.cli.files import (
    NUMBERS,
    PAGE,
    PLOT,
    RECORD,
    TABLE,
    OldPlot,
    OldReport,
    OldSave,
    out_option,
    outputs,
)
from ketwork.networks.collapse import CollapseCurve, collapse_curve
from ketwork.report import curve_as_json, render_curve

HELP = """Examples:

- `ketwork collapse`

- `ketwork collapse --metric accuracy --out collapse.svg`

- `ketwork collapse path/to/hf-folder --data messages.csv --text text --layers blocks --samples 500`
"""


class Metric(StrEnum):
    """How well the collapsed network does."""

    accuracy = "accuracy"
    loss = "loss"
    kl = "kl"


def command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model, as in `ketwork study`. Default: a small network trained on digits.",
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    text: options.TextColumn = None,
    inputs: options.Inputs = None,
    label: options.Label = None,
    layers: options.LayerNames = None,
    metric: Annotated[
        Metric, typer.Option(help="Of the predictions: accuracy, loss, or KL from the original network's.")
    ] = Metric.kl,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="The KL allowed, or the share of another metric that may be lost."),
    ] = 0.01,
    ranks: Annotated[
        str | None,
        typer.Option(metavar="K,K,…", help="Measure these ranks. Default: bisect for the smallest."),
    ] = None,
    center: Annotated[
        bool, typer.Option("--center", help="Collapse each layer about its mean activation.")
    ] = False,
    around_mean: Annotated[
        bool, typer.Option("--around-mean", hidden=True)
    ] = False,  # its name in version 0.1
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the samples that are taken.")] = 0,
    out: Annotated[list[Path] | None, out_option(RECORD, PAGE, TABLE, NUMBERS, PLOT)] = None,
    plot: OldPlot = None,
    save: OldSave = None,
    report: OldReport = None,
    with_command: options.WithCommand = False,
    columns: printing.Columns = None,
    sort: printing.Sort = None,
    csv: printing.Csv = False,
    as_json_: printing.Json = False,
    explain: printing.Explain = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """How few eigenstates of each layer keep what the network does: the smallest rank, layer by layer.

    Each layer alone is projected onto the leading eigenstates of its state. Without arguments: a small network trained
    on scikit-learn's digits, on digits it has not seen.
    """
    with one_line_errors(debug):
        options.both_or_neither(model, data)
        chosen = options.selectors(layers)
        size = options.image_size(image_size)
        normalization = options.normalization(mean, std)
        show = printing.Printing(columns, sort, csv, as_json_, explain)
        show.check()
        wanted = _numbers(ranks)
        files = outputs(out, RECORD, PAGE, TABLE, NUMBERS, PLOT, save=save, report=report, plot=plot)
        with redirect_stdout(sys.stderr):  # what a model prints must not get among the numbers
            loaded, source = options.loaded(
                model,
                data,
                device,
                text=text,
                input=inputs,
                label=label,
                batch_size=batch_size,
                samples=samples,
                seed=seed,
                image_size=size,
                **normalization,
            )
            with progress_bar(None) as progress:
                curve = collapse_curve(
                    loaded.model,
                    source.batches,
                    metric.value,
                    layers=chosen,
                    ranks=wanted,
                    tolerance=tolerance,
                    center=center or around_mean,
                    max_samples=source.limit(samples),
                    batch_size=batch_size,
                    seed=seed,
                    progress=progress or False,
                )
        described = {"model": loaded.description, "data": source.description}
        curve = curve.described(
            seed=seed, source=described, command=context.meta["command"], **source.settings
        )
        if files.record is not None:
            curve.save(files.record)
        if files.page is not None:
            curve.report(files.page, with_command=with_command)
        files.write_tables(curve.table, lambda: curve_as_json(curve))
        files.draw(curve.plot)
        print_curve(curve, show)
        files.say()


def print_curve(curve: CollapseCurve, show: printing.Printing) -> None:
    """Prints the curve as a table, as CSV or as JSON."""

    def render(console: Console, explain: bool) -> None:
        render_curve(curve, console)
        if explain:
            printing.glossary(console, curve.definitions)

    show.show(render, curve.table, lambda: curve_as_json(curve))


def _numbers(given: str | None) -> list[int] | None:
    if given is None:
        return None
    try:
        return [int(rank) for rank in given.split(",")]
    except ValueError as error:
        raise UsageError(f"--ranks must be numbers with commas between, but was {given!r}.") from error
