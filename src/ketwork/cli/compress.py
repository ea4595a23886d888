"""`ketwork compress`: a smaller network that predicts what the original does, without training."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ketwork.cli import options
from ketwork.cli.console import UsageError, one_line_errors, progress_bar, report_files, wide_console
from ketwork.networks.compression import compress as compress_network
from ketwork.records import write_text
from ketwork.report import compressed_as_json, render_compressed

HELP = """Examples:

- `ketwork compress`

- `ketwork compress nets:build@weights.pt --data digits.npz --keep 0.5 --out small.safetensors`

- `ketwork compress path/to/hf-folder --data messages.csv --text text --output last_hidden_state --keep 0.8`

The file is read by `ketwork.load_compressed(path, network)`, or without ketwork by a copy of the short file
`ketwork/networks/compression/loader.py`.
"""

_KEEP = 0.5


class Cost(StrEnum):
    """What a share is kept of."""

    parameters = "parameters"
    macs = "macs"
    latency = "latency"
    bytes = "bytes"
    multiply_adds = "multiply-adds"  # the older name of macs


class Loss(StrEnum):
    """What the network's output is."""

    kl = "kl"
    probabilities = "probabilities"
    bernoulli = "bernoulli"
    bernoulli_logits = "bernoulli_logits"
    regression = "regression"
    squared = "squared"


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
    keep: Annotated[
        float | None,
        typer.Option(help="The share of the network's total cost to keep. Default: 0.5.", show_default=False),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(help="Instead: the smallest network whose predictions change by so many nats at most."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Instead: the smallest network that loses so much accuracy at most (0.01: a point)."
        ),
    ] = None,
    cost: Annotated[
        Cost, typer.Option("--cost", "--budget", help="What `--keep` is a share of.")
    ] = Cost.parameters,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="A layer that may be changed: a name or a glob (repeatable). Default: all."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Which of the network's outputs matters. Default: logits, or the first."
        ),
    ] = None,
    loss: Annotated[
        Loss | None,
        typer.Option(
            help="What it is: logits (kl), probabilities, … Default: by its values.", show_default=False
        ),
    ] = None,
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    device: options.Device = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the directions of gradients.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Save the smaller network (safetensors).")
    ] = None,
    record: Annotated[Path | None, typer.Option(metavar="PATH", help="Save what `--json` prints.")] = None,
    report: options.Report = None,
    with_command: options.WithCommand = False,
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """A smaller network of plain torch.nn modules that predicts what the original does, without training.

    Layers become two thinner ones where their state over the data does not need all dimensions. Without arguments: a
    small network trained on scikit-learn's digits, by the digits that trained it.
    """
    with one_line_errors(debug):
        options.both_or_neither(model, data)
        bounds = {"--keep": keep, "--max-kl": max_kl, "--max-drop": max_drop}
        given = [name for name, value in bounds.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other. Give one of them.")
        chosen = options.selectors(layers)
        size = options.image_size(image_size)
        options.check_target("--out", out)
        options.check_target("--record", record)
        options.check_targets(None, report)
        with redirect_stdout(sys.stderr):  # what a model prints must not get among the numbers
            loaded, source = options.loaded(
                model,
                data,
                device,
                demo=options.DEMO_TRAINING,
                text=text,
                input=inputs,
                label=label,
                batch_size=batch_size,
                samples=samples,
                seed=seed,
                image_size=size,
            )
            with progress_bar(None) as progress:
                result = compress_network(
                    loaded.model,
                    source.batches,
                    keep=keep if given else _KEEP,
                    cost="macs" if cost is Cost.multiply_adds else cost.value,
                    max_kl=max_kl,
                    max_drop=max_drop,
                    layers="all" if chosen is None else chosen,
                    output=output,
                    loss=None if loss is None else loss.value,
                    max_samples=source.limit(samples),
                    batch_size=batch_size,
                    seed=seed,
                    progress=progress or False,
                )
        described = {"model": loaded.description, "data": source.description}
        result = replace(
            result,
            settings=result.settings
            | {"seed": seed, "source": described, "command": context.meta["command"]}
            | source.settings,
            warnings=(*result.warnings, *loaded.notes, *source.notes),
        )
        numbers = json.dumps(compressed_as_json(result), indent=1, ensure_ascii=False, allow_nan=False)
        if out is not None:
            result.save(out)
        if record is not None:
            write_text(record, numbers + "\n")
        if report is not None:
            result.report(report, with_command=with_command)
        if as_json_:
            print(numbers, flush=True)
        else:
            render_compressed(result, wide_console())
        report_files({"Network saved to": out, "Record saved to": record, "Report written to": report})
