"""`ketwork compress`: a smaller network that predicts what the original does, without training."""

from __future__ import annotations

import itertools
import sys
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import Tensor

from ketwork.cli import options, printing
from ketwork.cli.console import Quiet, UsageError, one_line_errors, progress_bar
from ketwork.cli.files import NUMBERS, ONNX, PAGE, PLOT, RECORD, TABLE, OldRecord, out_option, outputs
from ketwork.networks.compression import Compressed
from ketwork.networks.compression import compress as compress_network
from ketwork.report import compressed_as_json, render_compressed
from ketwork.sources import LoadedData

HELP = """Examples:

- `ketwork compress`

- `ketwork compress nets:build@weights.pt --data digits.npz --keep 0.5 --out small.safetensors`

- `ketwork compress path/to/hf-folder --data messages.csv --text text --output last_hidden_state --keep 0.8`

The file is read by `ketwork.load_compressed(path, network)`, or without ketwork by a copy of the short file
`ketwork/networks/compression/loader.py`.
"""

_KEEP = 0.5
_BATCHES = 8  # by which the ranges of 8-bit activations are taken
KINDS = (RECORD, PAGE, TABLE, NUMBERS, PLOT, ONNX)


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
        typer.Option(
            min=0,
            max=1,
            help="The share of the network's total cost to keep. Default: 0.5.",
            show_default=False,
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            min=0, help="Instead: the smallest network whose predictions change by so many nats at most."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="Instead: the smallest network that loses so much accuracy at most (0.01: a point)."
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
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the directions of gradients.")] = 0,
    out: Annotated[
        list[Path] | None,
        out_option(RECORD, PAGE, TABLE, NUMBERS, PLOT, ONNX, what=" The record is the smaller network."),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Export it for ONNX Runtime, as `--out x.onnx` does (extra `onnx`)."
        ),
    ] = None,
    record: OldRecord = None,
    with_command: options.WithCommand = False,
    columns: printing.Columns = None,
    sort: printing.Sort = None,
    csv: printing.Csv = False,
    as_json_: printing.Json = False,
    quiet: Quiet = False,
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
        normalization = options.normalization(mean, std)
        show = printing.Printing(columns, sort, csv, as_json_)
        show.check()
        files = outputs([*(out or []), *([onnx] if onnx else [])], *KINDS, record=record)
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
                **normalization,
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
        if files.record is not None:
            result.save(files.record)
        if files.page is not None:
            result.report(files.page, with_command=with_command)
        if ONNX in files.paths:
            _export(result, source, files.paths[ONNX])
        files.write_tables(result.table, lambda: compressed_as_json(result))
        files.draw(result.plot)
        print_compressed(result, show)
        files.say(record="Network saved to", numbers="Record saved to")


def print_compressed(result: Compressed, show: printing.Printing) -> None:
    """Prints what became of a network as a table, as CSV or as JSON."""

    def render(console: Console, explain: bool) -> None:
        render_compressed(result, console)

    show.show(render, result.table, lambda: compressed_as_json(result))


def _export(result: Compressed, source: LoadedData, path: Path) -> None:
    """Writes the ONNX file, by the first batch of the data."""
    try:
        inputs = [inputs_of(batch) for batch in itertools.islice(source.batches, _BATCHES)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own parts
            result.export_onnx(path, inputs[0], inputs)
    except ImportError as error:
        raise UsageError(
            f"--onnx needs the extra `onnx` ({error}). Install it with `pip install 'ketwork[onnx]'`."
        ) from error


def inputs_of(batch: Any) -> Tensor:
    """The tensor of a batch that a network gets.

    Raises:
        UsageError: it gets several, by name: those of a tokenizer.
    """
    content = batch[0] if isinstance(batch, tuple | list) else batch
    if not isinstance(content, Tensor):
        raise UsageError(
            "--onnx needs data whose batches are one tensor, but these are mappings (of a tokenizer). Export the "
            "network from Python: `result.export_onnx(path, (input_ids, attention_mask))`."
        )
    return content
