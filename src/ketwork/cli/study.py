"""`ketwork study`: every layer's state over data."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from ketwork.cli import options, printing
from ketwork.cli.console import (
    Quiet,
    UsageError,
    end_partial,
    one_line_errors,
    progress_bar,
    wide_console,
)
from ketwork.cli.files import NUMBERS, PAGE, PLOT, RECORD, TABLE, OldReport, OldSave, out_option, outputs
from ketwork.cli.job import Job, launched
from ketwork.cli.writing import concluded, left_to_do
from ketwork.networks.activations import Reading
from ketwork.networks.activations import generate as generate_tokens
from ketwork.networks.runtime import Distributed, Interrupted, PartialError, Plan
from ketwork.networks.study import Study, study_activations
from ketwork.networks.study import study as study_network
from ketwork.records import Checkpoint
from ketwork.report import as_json, render, render_plan

PAGE_SECONDS = 30.0
"""For the pairs of layers on a page, without `--compare`."""

HELP = """Examples:

- `ketwork study`

- `ketwork study --out study.html`

- `ketwork study nets:build@weights.safetensors --data digits.npz --out study.safetensors`

- `ketwork study path/to/hf-folder --data messages.csv --text text --label spam --layers blocks`

- `ketwork study path/to/hf-folder --data prompts.csv --text prompt --generate 64`

- `ketwork study --activations path/to/shards --layers 'model.layers.*'`
"""


def command(
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
    activations: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Study activations that are already there, in place of MODEL and --data: a safetensors or .npz file, "
            "or a folder of these or of .npy files, with an array for each layer.",
            show_default=False,
        ),
    ] = None,
    text: options.TextColumn = None,
    inputs: options.Inputs = None,
    label: options.Label = None,
    layers: options.LayerNames = None,
    generate: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help="Let a language model answer each text by up to so many tokens, and study prompts and answers.",
            show_default=False,
        ),
    ] = None,
    positions: options.Positions = "all",
    samples: options.Samples = None,
    batch_size: options.BatchSize = 64,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "cpu",
    seed: Annotated[
        int,
        typer.Option(
            help="Draws the samples that are taken, and those that standard errors are computed on."
        ),
    ] = 0,
    normalize: Annotated[
        options.Normalize, typer.Option(help="Vectors of weight 1 each, or of their squared norm.")
    ] = options.Normalize.state,
    center: Annotated[bool, typer.Option("--center", help="Subtract the mean vector.")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Decompose layers of more than 4,096 features too: minutes each.")
    ] = False,
    calls: Annotated[
        options.Calls, typer.Option(help="A module called repeatedly: a row for each call, or one for all.")
    ] = options.Calls.separate,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip, and count, samples with NaN or infinite values.")
    ] = False,
    lens: Annotated[
        bool,
        typer.Option("--lens", help="Of a language model: what its head makes of each block (logit lens)."),
    ] = False,
    attention: Annotated[
        bool,
        typer.Option("--attention", help="Entropy, first position's weight and rank of attention patterns."),
    ] = False,
    memory: options.Memory = None,
    out: Annotated[list[Path] | None, out_option(RECORD, PAGE, TABLE, NUMBERS, PLOT)] = None,
    save: OldSave = None,
    states: options.States = None,
    report: OldReport = None,
    with_command: options.WithCommand = False,
    compare: Annotated[
        bool | None,
        typer.Option(
            help="Compare the layers with each other, in the same pass. Default: where a page is written, as many "
            "pairs as half a minute gives, nearest layers first.",
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
    ] = Checkpoint.every,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the --checkpoint, if there is one yet.")
    ] = False,
    timeout: options.Timeout = options.WAIT,
    columns: printing.Columns = None,
    sort: printing.Sort = None,
    csv: printing.Csv = False,
    as_json_: printing.Json = False,
    explain: printing.Explain = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Every layer's state over data: dimensions used, coherence, entanglement, with standard errors.

    Without arguments: a small network trained on scikit-learn's digits, on digits it has not seen.
    """
    with one_line_errors(debug), launched(timeout) as job:
        if activations is None:
            options.both_or_neither(model, data)
        else:
            _check_alone(activations, job, model=model, data=data, text=text, input=inputs, generate=generate)
        chosen, which = options.selectors(layers), options.positions(positions)
        size = options.image_size(image_size)
        normalization = options.normalization(mean, std)
        show = printing.Printing(columns, sort, csv, as_json_, explain)
        show.check()
        chosen_states = options.states(states)
        options.check_memory(memory)
        files = outputs(out, RECORD, PAGE, TABLE, NUMBERS, PLOT, save=save, report=report)
        save, report = files.record, files.page
        if resume and checkpoint is None:
            raise UsageError("--resume needs the folder to continue from. Give --checkpoint FOLDER.")
        with redirect_stdout(sys.stderr):  # what a model prints must not get among the numbers
            ended: PartialError | Interrupted | None = None
            common: dict[str, Any] = {
                "layers": chosen,
                "positions": which,
                "batch_size": batch_size,
                "normalize": normalize.value,
                "center": center,
                "exact": exact,
                "seed": seed,
                "compare": (PAGE_SECONDS if report is not None else False) if compare is None else compare,
                "checkpoint": None if checkpoint is None else Checkpoint(checkpoint, every, resume),
                "memory": memory,
                "on_plan": None if memory is None or (job and job.rank) else _print_plan,
            }
            notes: tuple[str, ...] = ()
            about: dict[str, Any] = {}
            if activations is None:
                loaded, source = options.loaded(
                    model,
                    data,
                    job.device(device) if job else device,
                    text=text,
                    input=inputs,
                    label=label,
                    batch_size=batch_size,
                    samples=samples,
                    seed=seed,
                    image_size=size,
                    **normalization,
                    skip_bad=skip_bad,
                )
                total = source.samples if source.samples is not None else samples
                notes = (*loaded.notes, *source.notes)
                about = {
                    "source": {"model": loaded.description, "data": source.description},
                    **source.settings,
                }
                study: Callable[..., Study | None] = functools.partial(
                    study_network,
                    loaded.model,
                    source.batches,
                    forward=None if generate is None else generate_tokens(generate),
                    max_samples=source.limit(samples),
                    lens=lens,
                    attention=attention,
                    reading=Reading(calls=calls.value, skip_bad=skip_bad),
                    distributed=Distributed("split", timeout) if job else None,
                )
            else:
                total = samples
                about = {"source": {"data": {"spec": str(activations), "kind": "activations"}}}
                study = functools.partial(
                    study_activations, activations, labels=label, max_samples=samples, skip_bad=skip_bad
                )
            try:
                with progress_bar(total) as progress:
                    record = study(**common, progress=progress or False)
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
        record = record.described(
            notes,
            seed=seed,
            command=context.meta["command"],
            **about,
        )
        kept: list[int | None] = [None]

        def keep(path: Path) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # it is said below
                kept.append(record.save(path, states=chosen_states, pairs=bool(compare)))

        ended = concluded(
            record,
            ended,
            save=None if save is None else functools.partial(keep, save),
            report=report,
            with_command=with_command,
            show=lambda: print_study(record, show),
        )
        stopped = isinstance(ended, Interrupted)
        if not stopped:
            files.write_tables(record.table, lambda: as_json(record))
            files.draw(record.plot)
        unsaid = tuple(kind for kind, gone in ((RECORD, ended is not None), (PAGE, stopped)) if gone)
        files.say(unsaid, record=_saved(kept[-1]))
        if ended is not None:
            more = left_to_do(record, save, report) if stopped else ""
            if checkpoint is not None and not record.complete:
                more += " With --resume the same command continues from there."
            end_partial(ended, f"{record.samples} samples", save, more)


def _check_alone(activations: Path, job: Job | None, **others: Any) -> None:
    """Refuses what says how a network is run, where there is none."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        name = "MODEL" if given[0] == "model" else f"--{given[0]}"
        raise UsageError(
            f"--activations takes the place of MODEL and --data, but {name} was given too. Leave it out."
        )
    if job is not None:
        raise UsageError("--activations is read by one process. Leave torchrun out.")


def _saved(states: int | None) -> str:
    """What stands before the path of a saved study."""
    return (
        "Saved to"
        if states is None
        else f"Saved with the {states} leading states of each layer (--states full: all) to"
    )


def print_study(record: Study, show: printing.Printing) -> None:
    """Prints a study as a table, as CSV or as JSON."""
    show.show(functools.partial(render, record), record.table, lambda: as_json(record))


def _print_plan(plan: Plan) -> None:
    render_plan(plan, wide_console(stderr=True))
