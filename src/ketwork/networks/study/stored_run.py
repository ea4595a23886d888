"""`study_activations`: the same record as `study` gives, from activations in files."""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ketwork._draws import choose
from ketwork.networks.activations import (
    Batch,
    ChosenPositions,
    Labels,
    PositionChoice,
    StoredActivations,
    StoredBatch,
    full_precision,
    neutral,
    shards_of,
)
from ketwork.networks.measures import own_sums
from ketwork.networks.moments import Keep, Normalize, PairMoments
from ketwork.networks.runtime import (
    CheckpointError,
    Plan,
    Progress,
    open_checkpoints,
    parse_bytes,
    show_progress,
    show_stage,
    stream,
)
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.arguments import check_arguments
from ketwork.networks.study.ending import computed, gathered_of
from ketwork.networks.study.gathering import Gathering, GatheringState
from ketwork.networks.study.loop import BatchLoop
from ketwork.networks.study.result import Study
from ketwork.networks.study.run import ended
from ketwork.quantum import Seed, generator_from
from ketwork.records import Checkpoint, without_children

MODEL = "(activations)"
"""What stands in a record where a network's class would."""


@dataclass
class StoredLoop(BatchLoop):
    """The loop that reads each batch's activations from files."""

    live: StoredActivations
    skip_bad: bool = False
    stored: StoredBatch | None = field(default=None, init=False)

    def take_stored(self, stored: StoredBatch) -> int | None:
        """Takes a batch in with its activations, unless a checkpoint has it (None)."""
        self.stored = stored
        return self.take(stored.batch)

    def hand_over(self, batch: Batch) -> None:
        """Gives the batch's activations to what receives them.

        Raises:
            ValueError: one is not finite, and such samples are not to be skipped.
        """
        assert self.stored is not None
        for activation in () if self.skip_bad else self.stored.activations:
            bad = ~activation.values.isfinite().all(dim=-1)
            if activation.present is not None:
                bad &= activation.present
            if bool(bad.any()):
                sample = int(bad.any(dim=1).nonzero()[0])
                raise ValueError(
                    f"Argument `source` must hold finite activations, but layer {activation.info.label!r} has NaN or "
                    f"infinite values in {self.stored.origin(sample)}. Remove it, or skip such samples with "
                    "`skip_bad=True` (--skip-bad)."
                )
        with full_precision(), torch.no_grad():
            self.live.hand_over(self.stored.activations)


@neutral()
def study_activations(
    source: str | PathLike[str] | Mapping[str, Any] | Sequence[Any],
    *,
    layers: str | Sequence[str] | None = None,
    labels: Any = None,
    positions: PositionChoice = "all",
    names: Sequence[str] | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    normalize: Normalize = "state",
    center: bool = False,
    exact: bool = False,
    seed: Seed = 0,
    skip_bad: bool = False,
    compare: bool | float = False,
    memory: int | str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    checkpoint: Checkpoint | str | PathLike[str] | None = None,
    progress: Progress = False,
) -> Study:
    """The study of activations that are already there: the record that `study` gives of the network that made them.

    A shard holds an array for each layer, under the layer's name: (samples, features), (samples, positions, features),
    or, of texts of several lengths, rows in a line (rows, features). A second call of a layer is `"name (call 2)"`, as
    in tables. These names are no layers:

    - `labels`: one a sample, or one a position
    - `mask` (samples, positions): which positions exist
    - `lengths` (samples,): how many positions each sample has
    - `sample_ids` (samples,), or one for each row in a line, whose samples they tell; no sample may be there twice
    - `inputs`: what the network was given
    - any array of one axis, of numbers or texts: `labels=` may name it

    Samples of one seed are drawn as `study` draws them where `inputs` are there, so that standard errors and readouts
    of labels are those of a study of the network; else by the first layer's first sample. Shards are read one after the
    other, mapped into memory but for compressed `.npz` files; a batch may reach from one into the next.

    Args:
        source: a safetensors or `.npz` file; a folder of these, of `.npy` files (one shard, a layer each), or of such
            folders; a mapping of layers' names to arrays; or a list of these, one a shard. Also the folder that vLLM's
            `ExampleHiddenStatesConnector` writes, one file a request (vLLM 0.22: `hidden_states` (tokens, layers,
            features) and `token_ids`).
        layers: which layers: names and globs, in the order of the rows; None for all.
        labels: what is to be decoded: an array with one entry a sample, a mapping from sample ids, the name of another
            array beside the layers, None for `labels` where they are there, or False for none.
        names: of vLLM's files, the names of the layers that it was to give, in that order.
        max_samples: draw so many, as many of each label where labels are known.
        batch_size: how many samples are read at a time.
        skip_bad: skip, and count, samples with NaN or infinite activations instead of stopping.
        positions, normalize, center, exact, seed, compare, memory, on_plan, checkpoint, progress: as in `study`.

    Raises:
        ValueError, TypeError: files that are unknown, damaged, or do not fit together; values that are not finite.
        SelectorError: `layers` names none.
        StudyError, StudyInterrupted, CheckpointError: as in `study`.

    Cost: O(d²) a vector and layer, O(d³) a layer at the end. Memory: O(d²) a layer and one batch, whatever the number
    of samples and shards (but for 8 bytes a sample where there are `sample_ids`).

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> record = study_activations({"block.0": torch.randn(100, 7, 16), "block.1": torch.randn(100, 7, 8)})
    >>> [(layer.name, layer.N, layer.kets, layer.d) for layer in record]
    [('block.0', 100, 700, 16), ('block.1', 100, 700, 8)]
    """
    check_arguments(normalize, batch_size, max_samples, compare)
    budget = None if memory is None else parse_bytes(memory)
    shards = shards_of(source, None if names is None else list(names))
    live = StoredActivations.from_shards(shards, layers, labels if isinstance(labels, str) else None)
    labels = _by_ids(labels, live) if isinstance(labels, Mapping) else labels
    chosen = ChosenPositions(positions)
    draw = generator_from(seed)
    saving = Checkpoint.from_argument(checkpoint)
    places, taken = None, None
    if max_samples is not None and max_samples < live.samples:
        given = _labels(labels, live)
        places, taken = choose(live.samples, max_samples, given, seed)
        if labels is not None and labels is not False and not isinstance(labels, str):
            labels = np.asarray(labels)[places]
    targets = Labels(labels)
    targets.check_names(max_samples)
    settings = {
        "model": MODEL,
        "layers": "all" if layers is None else str(layers),
        "normalize": normalize,
        "center": center,
        "exact": exact or None,
        "calls": "separate",
        "positions": None if chosen.words == "all" else chosen.words,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "taken": taken,
        "skip_bad": skip_bad,
        "memory": memory,
        "pairs_seconds": None if isinstance(compare, bool) else float(compare),
        "torch": torch.__version__,
    }
    with contextlib.ExitStack() as stack:
        keep = Keep(normalize, skip_bad, sums=own_sums(), center=center)
        gathered = StudyAccumulator(
            normalize, labels=targets, pairs=None if compare is False else PairMoments()
        )
        run = Gathering(gathered, draw, keep, positions=chosen.at(places))
        live.receive = run.receive
        saved = None
        if saving is not None:
            bound = {name: value for name, value in settings.items() if name not in _FREE}
            bound |= {"seed": draw.initial_seed(), "compare": compare is not False}
            folder = Path(saving.path)
            saved = stack.enter_context(open_checkpoints(saving, folder, GatheringState, _about(live), bound))
        loop = StoredLoop(run, live, saved, budget, on_plan, exact, skip_bad)
        loop.resume(torch.device("cpu"))
        bar = stack.enter_context(show_progress(progress, max_samples))
        batches = live.batches(batch_size, places)
        ending = stream(
            batches, loop.take_stored, progress=bar, at_end=lambda: loop.end(max_samples is not None)
        )
        if isinstance(ending.error, CheckpointError):
            raise ending.error
        if ending.error is not None and run.gathered.batches == 0:
            raise ending.error
        result, ending = gathered_of(loop, ending)
        on_stage = functools.partial(show_stage, None if ending.reason else bar, run.position)
        with without_children():
            record, ending = computed(result, ending, settings, on_stage)
    return ended(record, ending)


_FREE = ("model", "layers", "taken", "pairs_seconds", "torch")
"""The settings that a checkpoint need not agree with as they are: all others it must."""


def _about(live: StoredActivations) -> dict[str, str]:
    """What a checkpoint knows the layers by."""
    shapes = [(info.name, info.call, width) for info, width in zip(live.infos, live.widths, strict=True)]
    return {"class": MODEL, "layers": f"{zlib.crc32(repr(shapes).encode()):08x}"}


def _by_ids(labels: Mapping[Any, Any], live: StoredActivations) -> list[Any]:
    """The labels in the order of the samples.

    Raises:
        ValueError: there are no ids, or a sample has no label.
    """
    if live.ids is None:
        raise ValueError(
            "Argument `labels` is a mapping from sample ids, but the shards have no `sample_ids`. Give an array with "
            "one entry a sample."
        )
    missing = [name for name in live.ids.tolist() if name not in labels]
    if missing:
        raise ValueError(
            f"Argument `labels` must have a label for each of the shards' sample ids, but has none for {missing[0]!r} "
            f"({len(missing)} of {len(live.ids)} are missing)."
        )
    return [labels[name] for name in live.ids.tolist()]


def _labels(labels: Any, live: StoredActivations) -> Any:
    """One label a sample, where that is known."""
    name = labels if isinstance(labels, str) else "labels"
    if labels is False or ((labels is None or isinstance(labels, str)) and name not in live.entries):
        return None
    values = live.entry(name) if labels is None or isinstance(labels, str) else np.asarray(labels)
    if len(values) != live.samples and not (labels is None or isinstance(labels, str)):
        raise ValueError(
            f"Argument `labels` must have one entry a sample, but has {len(values)} for {live.samples} samples."
        )
    return values if len(values) == live.samples else None
