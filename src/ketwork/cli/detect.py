"""`ketwork detect`: which samples are unlike the data that a network was studied on."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console

from ketwork.cli import options, printing
from ketwork.cli.console import (
    Quiet,
    UsageError,
    end_partial,
    one_line_errors,
    progress_bar,
)
from ketwork.cli.files import NUMBERS, PAGE, PLOT, RECORD, TABLE, OldReport, OldSave, out_option, outputs
from ketwork.cli.loading import load
from ketwork.networks.activations import Reading
from ketwork.networks.detection import DetectionError, DetectionInterrupted, Detector
from ketwork.networks.study import Study
from ketwork.networks.study import study as study_network
from ketwork.report import detection_as_json, render_detection
from ketwork.sources import LoadedModel, load_data

HELP = """Examples:

- `ketwork detect`

- `ketwork detect nets:build@weights.safetensors --study study.safetensors --data new.npz --out scores.csv`

- `ketwork detect path/to/hf-folder --study study.safetensors --data new.csv --text text --out detection.html`
"""


class Method(StrEnum):
    """How vectors are scored."""

    combined = "combined"
    mahalanobis = "mahalanobis"
    relative = "relative"
    typicality = "typicality"
    residual = "residual"


class Positions(StrEnum):
    """How a sample with several positions is scored."""

    mean = "mean"
    worst = "worst"
    both = "both"


def command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="The model that was studied, as in `ketwork study`. Default: a small network trained on digits.",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What `ketwork study --out` saved of that model and labelled data, or a saved detector.",
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    text: options.TextColumn = None,
    inputs: options.Inputs = None,
    label: options.Label = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="A studied layer's name or a glob (repeatable). Default: all of them."
        ),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="Distances to class means; less those to the common mean; Born probability; or all of them."
        ),
    ] = Method.combined,
    positions: Annotated[
        Positions,
        typer.Option(help="Of tokens or pixels: their mean as one vector, or each, the worst counting."),
    ] = Positions.mean,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Samples like those studied, but not among them, for p-values. Default: those that the study held.",
            show_default=False,
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="Alarms: at most this share of samples like those studied are ones.")
    ] = 0.05,
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the samples that are taken.")] = 0,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad", help="No score for samples with NaN or infinite values, instead of an error."
        ),
    ] = False,
    out: Annotated[
        list[Path] | None,
        out_option(TABLE, RECORD, PAGE, NUMBERS, PLOT, what=" The table has every sample's scores."),
    ] = None,
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
    """Which samples are unlike the data studied: score, p-value, nearest class, and the layer that says so most.

    Without arguments: a small network trained on scikit-learn's digits, studied on these, and digits it has not seen.
    """
    with one_line_errors(debug):
        options.both_or_neither(model, data)
        if (study is None) != (model is None):
            missing = "--study" if study is None else "MODEL and --data"
            raise UsageError(f"{missing} must be given too: a detector is made from a study of MODEL.")
        if not 0 < alpha < 1:
            raise UsageError(f"--alpha must lie between 0 and 1, but was {alpha:g}.")
        size = options.image_size(image_size)
        normalization = options.normalization(mean, std)
        show = printing.Printing(columns, sort, csv, as_json_, explain)
        show.check()
        files = outputs(out, TABLE, RECORD, PAGE, NUMBERS, PLOT, save=save, report=report)
        reading: dict[str, Any] = {
            "text": text,
            "input": inputs,
            "label": label,
            "batch_size": batch_size,
            "image_size": size,
            **normalization,
        }
        record = None if study is None else load(study, Study, Detector)
        assert record is None or isinstance(record, Study | Detector)
        with redirect_stdout(sys.stderr):  # what a model prints must not get among the numbers
            loaded, source = options.loaded(
                model, data, device, samples=samples, seed=seed, skip_bad=skip_bad, **reading
            )
            if isinstance(record, Detector):
                detector = record
            else:
                detector = _made(
                    record, loaded, calibration, method, layers, positions, batch_size, seed, reading
                )
            ended: DetectionError | DetectionInterrupted | None = None
            frame: pd.DataFrame | None
            try:
                with progress_bar(source.samples if source.samples is not None else samples) as progress:
                    frame = detector.score(
                        loaded.model,
                        source.batches,
                        alpha=alpha,
                        layers=True,
                        max_samples=source.limit(samples),
                        batch_size=batch_size,
                        reading=Reading(skip_bad=skip_bad),
                        progress=progress or False,
                    )
            except (DetectionError, DetectionInterrupted) as failure:
                if failure.partial is None:
                    raise
                frame, ended = failure.partial, failure
        detector = detector.described(
            source={"model": loaded.description, "data": source.description}, command=context.meta["command"]
        )
        if files.record is not None:
            detector.save(files.record)
        files.write_tables(frame.reset_index, lambda: detection_as_json(detector, frame))
        if files.page is not None:
            detector.report(files.page, scores=frame, alpha=alpha, with_command=with_command)
        files.draw(detector.plot, scores=frame, alpha=alpha)
        print_detection(detector, frame, alpha, show)
        files.say(table="Scores written to")
        if ended is not None:
            end_partial(ended, f"{len(frame)} samples", files.paths.get(TABLE))


def print_detection(
    detector: Detector, frame: pd.DataFrame | None, alpha: float, show: printing.Printing
) -> None:
    """Prints a detector, and the samples that it scored, as a table, as CSV or as JSON."""

    def render(console: Console, explain: bool) -> None:
        render_detection(detector, frame, alpha, console)
        if explain:
            printing.glossary(console, detector.definitions)

    show.show(
        render,
        detector.table if frame is None else frame.reset_index,
        lambda: detection_as_json(detector, frame),
    )


def _made(
    record: Study | None,
    loaded: LoadedModel,
    calibration: str | None,
    method: Method,
    layers: list[str] | None,
    positions: Positions,
    batch_size: int,
    seed: int,
    reading: dict[str, Any],
) -> Detector:
    """The detector of a study, of the demonstration's where there is none."""
    if record is None:
        training = load_data(options.DEMO_TRAINING, dtype=loaded.dtype, batch_size=batch_size)
        record = study_network(loaded.model, training.batches)
        assert record is not None
    given = None
    if calibration is not None:
        source = load_data(
            calibration,
            tokenizer=loaded.tokenizer,
            processor=loaded.processor,
            dtype=loaded.dtype,
            **reading,
        )
        given = options.fitting(loaded, source).batches
    detector: Detector = record.detector(
        method.value,
        layers=layers or None,
        positions=positions.value,
        model=None if given is None else loaded.model,
        calibration=given,
        batch_size=batch_size,
        seed=seed,
    )
    return detector
