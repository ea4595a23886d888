"""The command: `study` reads a network as a quantum system, `compare` says how alike layers are, `collapse` how many
eigenstates they need, `compress` makes it smaller; `report` makes a page of what was saved, `show` prints it.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ketwork._version import __version__
from ketwork.cli import collapse as _collapse
from ketwork.cli import compress as _compress
from ketwork.cli import ground as _ground
from ketwork.cli import options
from ketwork.cli.console import (
    INTERRUPTED,
    UsageError,
    complain,
    one_line_errors,
    progress_bar,
    said,
    tell_files,
    wide_console,
)
from ketwork.cli.job import launched
from ketwork.networks.collapse.curve_result import CollapseCurve
from ketwork.networks.comparison.result import Comparison
from ketwork.networks.comparison.run import compare as compare_networks
from ketwork.networks.runtime.checkpoints import EVERY
from ketwork.networks.runtime.distributed import ProcessError
from ketwork.networks.runtime.memory import Plan
from ketwork.networks.study.result import Study
from ketwork.networks.study.run import INTERRUPTION, StudyInterrupted
from ketwork.networks.study.run import study as study_network
from ketwork.report import (
    as_json,
    comparison_as_json,
    render,
    render_comparison,
    render_plan,
    write_comparison,
)
from ketwork.sources import LoadedData, LoadedModel, load_data, load_model

Record = Study | Comparison | CollapseCurve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
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
    app(prog_name="ketwork")


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


@app.command(
    cls=options.Recorded,
    epilog="""Examples:

- `ketwork study`

- `ketwork study --report study.html`

- `ketwork study nets:build@weights.safetensors --data digits.npz --save study.safetensors`

- `ketwork study path/to/hf-folder --data messages.csv --text text --label spam --layers blocks`
""",
)
def study(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="`package.module:factory` or `file.py:factory`, either with `@weights.safetensors` or "
            "`@weights.pt`; or a Hugging Face model folder. Default: a small network trained on digits.",
            show_default=False,
        ),
    ] = None,
    data: options.Data = None,
    text: options.TextColumn = None,
    inputs: options.Inputs = None,
    label: options.Label = None,
    layers: options.LayerNames = None,
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    device: options.Device = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the samples that standard errors are computed on.")] = 0,
    normalize: Annotated[
        options.Normalize, typer.Option(help="Kets of weight 1 each, or of their squared norm.")
    ] = options.Normalize.state,
    center: Annotated[bool, typer.Option("--center", help="Subtract the mean ket.")] = False,
    calls: Annotated[
        options.Calls, typer.Option(help="A module called repeatedly: a row for each call, or one for all.")
    ] = options.Calls.separate,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out, and count, samples with NaN or infinite values.")
    ] = False,
    memory: options.Memory = None,
    save: options.Save = None,
    report: options.Report = None,
    compare: Annotated[
        bool | None,
        typer.Option(
            help="Compare the layers with each other, in the same pass. Default: where there is a --report.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write the state of the pass there again and again, for --resume."
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="BATCHES", help="From one --checkpoint to the next.")
    ] = EVERY,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the --checkpoint, if there is one yet.")
    ] = False,
    timeout: options.Timeout = options.WAIT,
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Every layer's state over data: dimensions used, coherence, entanglement, with standard errors.

    Without arguments: a small network trained on scikit-learn's digits, on digits it has not seen.
    """
    with one_line_errors(debug), launched(timeout) as job:
        options.both_or_neither(model, data)
        chosen = options.selectors(layers)
        size = options.image_size(image_size)
        options.check_memory(memory)
        options.check_targets(save, report)
        if resume and checkpoint is None:
            raise UsageError("--resume needs the folder to go on from. Give --checkpoint FOLDER.")
        with redirect_stdout(sys.stderr):  # what a model prints must not get among the numbers
            loaded, source = options.loaded(
                model,
                data,
                job.device(device) if job else device,
                text=text,
                input=inputs,
                label=label,
                batch_size=batch_size,
                samples=samples,
                image_size=size,
                skip_bad=skip_bad,
            )
            try:
                with progress_bar(source.samples if source.samples is not None else samples) as progress:
                    found = study_network(
                        loaded.model,
                        source.batches,
                        layers=chosen,
                        samples=samples,
                        batch_size=batch_size,
                        normalize=normalize.value,
                        center=center,
                        calls=calls.value,
                        generator=torch.Generator().manual_seed(seed),
                        skip_bad=skip_bad,
                        compare=report is not None if compare is None else compare,
                        checkpoint=checkpoint,
                        every=every,
                        resume=resume,
                        memory=memory,
                        planned=None if job and job.rank else _print_plan,
                        processes="split" if job else None,
                        timeout=timeout,
                        progress=progress,
                    )
            except (StudyInterrupted, ProcessError) as ended:
                if job:
                    job.met = True
                gathered = ended.study if isinstance(ended, StudyInterrupted) else ended.found
                if gathered is None:
                    raise
                found = gathered
        if job:
            job.met = True
            if job.rank:
                return  # process 0 tells
        found = replace(
            found,
            settings=found.settings
            | {"seed": seed, "source": {"model": loaded.description, "data": source.description}}
            | {"command": context.meta["command"]},
            notes=(*found.notes, *loaded.notes, *source.notes),
        )
        try:
            if save is not None:
                found.save(save, pairs=bool(compare))
            if report is not None:
                found.report(report)
        finally:
            _show(found, as_json_)
        _end(found, save, report, checkpoint)


@app.command(
    cls=options.Recorded,
    epilog="""Examples:

- `ketwork compare nets:build@before.pt nets:build@after.pt --data digits.npz --report changes.html`

- `ketwork compare path/to/hf-folder --data messages.csv --text text` (its layers with each other)
""",
)
def compare(
    context: typer.Context,
    model_a: Annotated[str, typer.Argument(metavar="MODEL_A", help="A model, as in `ketwork study`.")],
    model_b: Annotated[
        str | None,
        typer.Argument(metavar="MODEL_B", help="Another one. Default: the same, its layers with each other."),
    ] = None,
    data: options.Data = None,
    text: options.TextColumn = None,
    inputs: options.Inputs = None,
    label: options.Label = None,
    layers: options.LayerNames = None,
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    device: options.Device = "cpu",
    seed: Annotated[int, typer.Option(help="Draws the projection of layers too wide for memory.")] = 0,
    positions: Annotated[
        bool, typer.Option("--positions", help="Compare every position, not each sample's mean.")
    ] = False,
    save: options.Save = None,
    report: options.Report = None,
    timeout: options.Timeout = options.WAIT,
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """How alike every pair of layers is, within a model or between two: CKA, Bures similarity, linear maps.

    Two models get the same samples; a second one with a tokenizer of its own reads texts through that.
    """
    with one_line_errors(debug), launched(timeout) as job:
        if data is None:
            raise UsageError("`ketwork compare` needs --data. Give what both models are to be run on.")
        chosen = options.selectors(layers)
        size = options.image_size(image_size)
        options.check_targets(save, report)
        with redirect_stdout(sys.stderr):
            device = job.device(device) if job else device
            first = load_model(model_a, device)
            second = None if model_b is None else load_model(model_b, device)

            def read(model: LoadedModel) -> LoadedData:
                return load_data(
                    data,
                    text=text,
                    input=inputs,
                    label=label,
                    tokenizer=model.tokenizer,
                    batch_size=batch_size,
                    samples=samples,
                    image_size=size,
                    dtype=model.dtype,
                )

            source = read(first)
            own = second is not None and text is not None
            with progress_bar(source.samples if source.samples is not None else samples) as progress:
                try:
                    found = compare_networks(
                        first.model,
                        None if second is None else second.model,
                        source.batches,
                        data_b=read(second).batches if second is not None and own else None,
                        layers=chosen,
                        samples=samples,
                        batch_size=batch_size,
                        positions=positions,
                        generator=torch.Generator().manual_seed(seed),
                        processes="split" if job else None,
                        timeout=timeout,
                        progress=progress,
                    )
                except ProcessError as ended:
                    if job:
                        job.met = True
                    if ended.found is None:
                        raise
                    found = ended.found
        if job:
            job.met = True
            if job.rank:
                return  # process 0 tells
        described = {"model": first.description, "data": source.description}
        if second is not None:
            described["other"] = second.description
        found = replace(
            found,
            settings=found.settings
            | {"seed": seed, "source": described}
            | {"command": context.meta["command"]},
        )
        try:
            if save is not None:
                found.save(save)
            if report is not None:
                write_comparison(found, report)
        finally:
            _show_comparison(found, as_json_)
        tell_files({"Saved to": save, "Report written to": report})
        if not found.complete:
            raise RuntimeError(f"{_why(found.error)}. What {found.n} samples before it gave is shown.")


app.command(cls=options.Recorded, epilog=_collapse.HELP)(_collapse.collapse)

app.command(cls=options.Recorded, epilog=_compress.HELP)(_compress.compress)

app.command(epilog=_ground.HELP)(_ground.ground)


@app.command(epilog="Example: `ketwork show study.safetensors`")
def show(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="What `ketwork study`, `ketwork compare` or `ketwork collapse` saved."
        ),
    ],
    as_json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print a saved study, comparison or collapse curve again."""
    with one_line_errors(debug):
        found = _load(path, Study, Comparison, CollapseCurve)
        if isinstance(found, Study):
            _show(found, as_json_)
        elif isinstance(found, CollapseCurve):
            _collapse.show_curve(found, as_json_)
        else:
            _show_comparison(found, as_json_)


@app.command("report", epilog="Example: `ketwork report study.safetensors -o study.html`")
def write_report(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `ketwork study` or `ketwork compare` saved.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="The page. Default: beside FILE, as .html."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Write a saved study or comparison as one HTML page that needs no network."""
    with one_line_errors(debug):
        target = path.with_suffix(".html") if output is None else output
        options.check_targets(None, target, "--output")
        found = _load(path, Study, Comparison)
        if isinstance(found, Study):
            found.report(target)
        elif isinstance(found, Comparison):
            write_comparison(found, target)
        tell_files({"Saved to": None, "Report written to": target})


def _load(path: Path, *kinds: type[Record]) -> Record:
    """The record in a file, which must be of one of these kinds."""
    errors = []
    for kind in kinds:
        try:
            return kind.load(path)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    raise UsageError(errors[0])


def _show(found: Study, as_json_: bool) -> None:
    if as_json_:
        _print(as_json(found))
        return
    render(found, wide_console())


def _show_comparison(found: Comparison, as_json_: bool) -> None:
    if as_json_:
        _print(comparison_as_json(found))
    else:
        render_comparison(found, wide_console())


def _print_plan(plan: Plan) -> None:
    render_plan(plan, wide_console(stderr=True))


def _print(numbers: dict[str, Any]) -> None:
    print(json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False), flush=True)


def _end(found: Study, save: Path | None, report: Path | None, checkpoint: Path | None) -> None:
    """Ends the command with the right exit code where the study is partial."""
    tell_files({"Saved to": save if found.complete else None, "Report written to": report})
    if found.complete:
        return
    kept = f"saved to {save}" if save is not None else "not saved: no --save was given"
    partial = f"What {found.samples} samples before it gave is shown, and {kept}."
    if checkpoint is not None:
        partial += " With --resume the same command goes on from there."
    if isinstance(found.error, Exception):
        raise RuntimeError(f"{_why(found.error)}. {partial}") from found.error
    if found.error != INTERRUPTION:
        raise RuntimeError(f"{_why(found.error)}. {partial}")
    complain(f"interrupted. {partial}")
    raise typer.Exit(INTERRUPTED)


def _why(error: Exception | str | None) -> str:
    return (said(error) if isinstance(error, Exception) else str(error)).rstrip(".")
