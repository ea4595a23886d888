"""`ketwork compare`: what changed between two models, and how alike every pair of layers is."""

from __future__ import annotations

import functools
import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from ketwork.cli import options, printing
from ketwork.cli.console import (
    Quiet,
    UsageError,
    end_partial,
    one_line_errors,
    progress_bar,
)
from ketwork.cli.files import NUMBERS, PAGE, PLOT, RECORD, TABLE, OldReport, OldSave, out_option, outputs
from ketwork.cli.job import launched
from ketwork.cli.writing import concluded, left_to_do
from ketwork.networks.comparison import Comparison
from ketwork.networks.comparison import compare as compare_networks
from ketwork.networks.runtime import Distributed, Interrupted, PartialError
from ketwork.report import comparison_as_json, render_comparison
from ketwork.sources import LoadedData, LoadedModel, load_data, load_model

HELP = """Examples:

- `ketwork compare nets:build@before.pt nets:build@after.pt --data digits.npz --out changes.html`

- `ketwork compare path/to/hf-folder --data messages.csv --text text` (its layers with each other)
"""


class Unit(StrEnum):
    """What is compared."""

    sample = "sample"
    position = "position"
    flat = "flat"


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, as in `ketwork study`.")],
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="Another one. Default: the same, its layers with each other."),
    ] = None,
    data: options.Data = None,
    text: options.TextColumn = None,
    inputs: options.Inputs = None,
    label: options.Label = None,
    layers: options.LayerNames = None,
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    seed: Annotated[
        int,
        typer.Option(
            help="Draws the samples that are taken, and the projection of layers too wide for memory."
        ),
    ] = 0,
    unit: Annotated[
        Unit,
        typer.Option(
            help="What is compared: each sample's mean over its positions, every position, or positions and features "
            "together."
        ),
    ] = Unit.sample,
    positions: Annotated[bool, typer.Option("--positions", hidden=True)] = False,  # of version 0.1
    out: Annotated[list[Path] | None, out_option(RECORD, PAGE, TABLE, NUMBERS, PLOT)] = None,
    save: OldSave = None,
    report: OldReport = None,
    with_command: options.WithCommand = False,
    timeout: options.Timeout = options.WAIT,
    columns: printing.Columns = None,
    sort: printing.Sort = None,
    csv: printing.Csv = False,
    as_json_: printing.Json = False,
    explain: printing.Explain = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """What changed between two models, layer by layer, or how alike the layers of one are: CKA, Bures, linear maps.

    Two models get the same samples; a second one with a tokenizer of its own reads texts through that.
    """
    with one_line_errors(debug), launched(timeout) as job:
        if data is None:
            raise UsageError("`ketwork compare` needs --data. Give what both models are to be run on.")
        chosen = options.selectors(layers)
        size = options.image_size(image_size)
        normalization = options.normalization(mean, std)
        show = printing.Printing(columns, sort, csv, as_json_, explain)
        show.check()
        files = outputs(out, RECORD, PAGE, TABLE, NUMBERS, PLOT, save=save, report=report)
        save, report = files.record, files.page
        ended: PartialError | Interrupted | None = None
        with redirect_stdout(sys.stderr):
            device = job.device(device) if job else device
            first = load_model(model, device)
            second = None if other is None else load_model(other, device)

            def read(network: LoadedModel) -> LoadedData:
                source = load_data(
                    data,
                    text=text,
                    input=inputs,
                    label=label,
                    tokenizer=network.tokenizer,
                    batch_size=batch_size,
                    samples=samples,
                    seed=seed,
                    image_size=size,
                    **normalization,
                    dtype=network.dtype,
                    processor=network.processor,
                )
                return options.fitting(network, source)

            source = read(first)
            own = second is not None and (text is not None or source.integers is not None)
            with progress_bar(source.samples if source.samples is not None else samples) as progress:
                try:
                    record = compare_networks(
                        first.model,
                        source.batches,
                        None if second is None else second.model,
                        other_data=read(second).batches if second is not None and own else None,
                        layers=chosen,
                        max_samples=source.limit(samples),
                        batch_size=batch_size,
                        unit=Unit.position.value if positions else unit.value,
                        seed=seed,
                        distributed=Distributed("split", timeout) if job else None,
                        progress=progress or False,
                    )
                except (PartialError, Interrupted) as failure:
                    if job:
                        job.met = True
                    if failure.partial is None:
                        raise
                    record, ended = failure.partial, failure
        if job:
            job.met = True
            if job.rank:
                return  # process 0 reports
        assert record is not None
        described = {"model": first.description, "data": source.description}
        if second is not None:
            described["other"] = second.description
        record = record.described(
            seed=seed, source=described, command=context.meta["command"], **source.settings
        )
        ended = concluded(
            record,
            ended,
            save=None if save is None else functools.partial(record.save, save),
            report=report,
            with_command=with_command,
            show=functools.partial(print_comparison, record, show),
        )
        stopped = isinstance(ended, Interrupted)
        if not stopped:
            files.write_tables(functools.partial(table_of, record), lambda: comparison_as_json(record))
            files.draw(record.plot, measure=None if record.itself else "changes")
        files.say(tuple(kind for kind, gone in ((RECORD, ended is not None), (PAGE, stopped)) if gone))
        if ended is not None:
            counted = "positions" if record.settings["unit"] == Unit.position else "samples"
            more = left_to_do(record, save, report) if stopped else ""
            end_partial(ended, f"{record.n} {counted}", save, more)


def print_comparison(record: Comparison, show: printing.Printing) -> None:
    """Prints a comparison as a table, as CSV or as JSON."""
    show.show(
        functools.partial(render_comparison, record),
        functools.partial(table_of, record),
        lambda: comparison_as_json(record),
    )


def table_of(record: Comparison) -> pd.DataFrame:
    """A row for each pair of layers, or of two models for each layer that both have: what changed."""
    return record.table() if record.itself else record.changes().reset_index()
