"""The options that commands share, and what becomes of those that are more than one value."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from typing import Annotated, Any

import torch
import typer
from typer.core import TyperCommand

from ketwork.cli.console import CALLED, UsageError
from ketwork.networks.activations import IntegersRefusedError, batches, device_of
from ketwork.networks.runtime import parse_bytes
from ketwork.sources import LoadedData, LoadedModel, load_data, load_model

DEMO_MODEL = "ketwork.demo.digits:model"
DEMO_DATA = "ketwork.demo.digits:held_out"
DEMO_TRAINING = "ketwork.demo.digits:training"


_WORDS = ("all", "blocks", "decoder", "heads", "experts")


class Recorded(TyperCommand):
    """A command that keeps how it was called, for the settings of what it makes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments, which are kept as they were given."""
        CALLED.set(ctx)
        ctx.meta["command"] = shlex.join(["ketwork", ctx.info_name, *args])
        return super().parse_args(ctx, args)


class Normalize(StrEnum):
    """How vectors are weighed."""

    state = "state"
    ensemble = "ensemble"


class Calls(StrEnum):
    """What becomes of a module that is called several times in one forward pass."""

    separate = "separate"
    pooled = "pooled"


Debug = Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="An .npz, .npy, .csv, .tsv, .json, .jsonl, .parquet or .txt file (a text a line), a folder of images with "
        "one subfolder a class, or `package.module:factory` returning batches.",
        show_default=False,
        rich_help_panel="Data",
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="COLUMN",
        help="The column of texts, for the model's tokenizer.",
        rich_help_panel="Data",
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME",
        help="The array of features in an .npz file, or a column of numbers (name or glob, repeatable).",
        rich_help_panel="Data",
    ),
]
Label = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column or array of labels.", rich_help_panel="Data")
]
LayerNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LAYER",
        help="A layer's name or a glob (repeatable), `blocks`, `decoder`, `heads`, `experts` or `all`. Default: the "
        "main layers.",
    ),
]
Positions = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Of each sample's positions: `all`, `no-sinks`, `first`, `last`, `prompt`, `answer`, a slice such as "
        "`1:`, or the key of a mask.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Take so many samples: as many of each label where the data have labels, else at random, by the seed.",
        rich_help_panel="Data",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in a batch.", rich_help_panel="Data")]
ImageSize = Annotated[
    str | None,
    typer.Option(metavar="N or HxW", help="Resize images to this height and width.", rich_help_panel="Data"),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="M,M,M",
        help="Of images, which are in [0, 1]: subtract this from each channel (or one number from all). Default: what "
        "the model folder's image processor does; 0 without one.",
        show_default=False,
        rich_help_panel="Data",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,S",
        help="Of images: then divide each channel by this. Default as for --mean; 1.",
        show_default=False,
        rich_help_panel="Data",
    ),
]
Device = Annotated[str, typer.Option(help="Where to run the network: cpu, cuda, cuda:1, mps.")]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES",
        help="What the statistics of all layers may take, on top of the network: `800MB`, `2GiB`. The widest layers "
        "become sketches where it must be, with guaranteed bounds for each number. Default: exact.",
        show_default=False,
    ),
]
WAIT = 1800.0
Timeout = Annotated[
    float, typer.Option(min=1, help="Under torchrun: seconds to wait for processes that are slower.")
]
States = Annotated[
    str | None,
    typer.Option(
        metavar="N|full",
        help="What a saved study keeps of each layer beside its numbers: `full`, all that was gathered, of which "
        "studies add up and detectors are made; or the spectrum and N leading states. Default: `full` up to 100 MB, "
        "else 64.",
        show_default=False,
    ),
]

WithCommand = Annotated[
    bool,
    typer.Option(
        "--with-command",
        help="Show the command line and absolute paths on the page, which others may see.",
        rich_help_panel="Printing",
    ),
]


def loaded(
    model: str | None, data: str | None, device: str, demo: str = DEMO_DATA, **reading: Any
) -> tuple[LoadedModel, LoadedData]:
    """The model and the data that a command names, or those of the demonstration; `reading` is for `load_data`."""
    network = load_model(model or DEMO_MODEL, device)
    source = load_data(
        data or demo,
        tokenizer=network.tokenizer,
        processor=network.processor,
        dtype=network.dtype,
        **reading,
    )
    return network, fitting(network, source)


def fitting(network: LoadedModel, source: LoadedData) -> LoadedData:
    """The data, as floats where they are integers that the network refuses, as a trial of two samples shows."""
    if source.integers is None:
        return source
    first = next(batches(source.batches, batch_size=1, max_samples=2, device=device_of(network.model)))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            first.run(network.model, None)
    except IntegersRefusedError:
        return source.as_floats()
    return source


def both_or_neither(model: str | None, data: str | None) -> None:
    """A model needs data and data a model; without both there is the demonstration."""
    if (model is None) != (data is None):
        missing, given = ("MODEL", "--data") if model is None else ("--data", "MODEL")
        raise UsageError(f"{given} needs {missing} beside it. Give both, or neither for the demonstration.")


def selectors(given: list[str] | None) -> str | list[str] | None:
    """What `study` and `compare` take as `layers`."""
    if given and "all" in given and len(given) > 1:
        raise UsageError(f"--layers all stands alone, but was given as {given}. Leave the others out.")
    return given[0] if given and given[0] in _WORDS and len(given) == 1 else given or None


def positions(given: str) -> str | slice:
    """What `study` takes as `positions`: a word, the key of a mask, or a slice as Python writes it."""
    match = re.fullmatch(r"(-?\d+)?:(-?\d+)?(?::(-?\d+)?)?", given)
    if match is None:
        return given
    start, stop, step = (None if part is None else int(part) for part in match.groups())
    if step == 0:
        raise UsageError(f"--positions must be a slice whose step is not 0, but was {given!r}.")
    return slice(start, stop, step)


def states(given: str | None) -> int | str | None:
    """What `Study.save` takes as `states`."""
    if given is None or given == "full":
        return given
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"--states must be a number of leading states ≥ 1, or full, but was {given!r}.")
    return int(given)


def image_size(given: str | None) -> tuple[int, int] | None:
    """Height and width of images."""
    if given is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", given)
    if match is None:
        raise UsageError(f"--image-size must be a number of pixels or HEIGHTxWIDTH, but was {given!r}.")
    return int(match[1]), int(match[2] or match[1])


def normalization(mean: str | None, std: str | None) -> dict[str, Any]:
    """What `load_data` takes as `mean` and `std`."""
    return {"mean": _channels("--mean", mean), "std": _channels("--std", std)}


def _channels(option: str, given: str | None) -> tuple[float, ...] | None:
    """The numbers of --mean or --std, one a channel or one for all."""
    if given is None:
        return None
    try:
        return tuple(float(part) for part in given.split(","))
    except ValueError as error:
        raise UsageError(f"{option} must be numbers with commas between, but was {given!r}.") from error


def check_memory(given: str | None) -> None:
    """Whether a budget is one, before anything is loaded."""
    if given is None:
        return
    try:
        parse_bytes(given)
    except ValueError as error:
        raise UsageError(str(error).replace("Argument `memory`", "--memory")) from error
