"""`study`: one streaming pass over data that gives every layer's state, with error bars."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ketwork._compat import moved, renamed
from ketwork.networks.activations import (
    ChosenPositions,
    EmptyDataError,
    Forward,
    Generate,
    Labels,
    Layers,
    Mask,
    PositionChoice,
    Reading,
    batches,
    capture,
    drawn,
    dtype_of,
    is_sharded,
    needs_labels,
    neutral,
    placed,
    tokenized,
    unwrapped,
)
from ketwork.networks.measures import own_sums
from ketwork.networks.moments import Keep, Normalize, PairMoments
from ketwork.networks.runtime import (
    CheckpointError,
    Distributed,
    Ending,
    Interrupted,
    PartialError,
    Plan,
    ProcessError,
    Processes,
    Progress,
    join,
    of_network,
    open_checkpoints,
    parse_bytes,
    show_progress,
    show_stage,
    stream,
)
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.arguments import check_arguments, plain
from ketwork.networks.study.ending import computed, gathered_of
from ketwork.networks.study.gathering import Gathering, GatheringState
from ketwork.networks.study.loop import Loop
from ketwork.networks.study.numbers import OnStage
from ketwork.networks.study.options import extras_of
from ketwork.networks.study.result import Study
from ketwork.quantum import Seed, generator_from
from ketwork.records import Checkpoint, without_children


class StudyError(PartialError):
    """A study failed after some batches: `partial` is the study of those; `__cause__` is the error that ended it."""


class StudyInterrupted(Interrupted):
    """Ctrl-C during a study; `partial` is the study of what was gathered, or None if no batch was finished."""

    @property
    def study(self) -> Study | None:
        """`partial`, under its name of version 0.1; warns."""
        moved("`StudyInterrupted.study` is now called `partial`.")
        return self.partial


@renamed(
    groups={
        "reading": lambda reading: reading,
        "checkpoint": Checkpoint.from_argument,
        "distributed": Distributed.from_argument,
    },
    samples="max_samples",
    generator="seed",
    planned="on_plan",
    processes="distributed",
    timeout="distributed.timeout",
    every="checkpoint.every",
    resume="checkpoint.resume",
    calls="reading.calls",
    feature_axis="reading.feature_axis",
    skip_bad="reading.skip_bad",
    device="reading.device",
)
@neutral()
def study(
    model: nn.Module,
    data: Any,
    *,
    layers: Layers = None,
    labels: Any = None,
    mask: Mask = None,
    positions: PositionChoice = "all",
    tokenizer: Any = None,
    forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    normalize: Normalize = "state",
    center: bool = False,
    exact: bool = False,
    seed: Seed = 0,
    reading: Reading = Reading(),  # noqa: B008  frozen
    compare: bool | float = False,
    lens: bool = False,
    attention: bool = False,
    memory: int | str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    checkpoint: Checkpoint | str | PathLike[str] | None = None,
    distributed: Distributed | str | None = None,
    progress: Progress = False,
) -> Study | None:
    """Every layer's state over the data, in one forward pass of a trained network.

    Each activation is encoded as a ket (see `ketwork.encode`), one a sample and position; a layer's state
    is ρ = (1/n) Σ |ψ⟩⟨ψ|. The table's columns are defined in `Study.definitions`. Standard errors are for
    the sampling of the data, by influence functions summed over each sample, since positions of one sample
    are not independent. The network runs in evaluation mode without gradients and is left as it was.

    Args:
        model: any `nn.Module`.
        data: array, tensor, Dataset, DataLoader, or any iterable of batches; a batch is a tensor, a pair
            (x, y) of which the network gets x, or a mapping that the network gets as keyword arguments,
            without its `labels`.
        layers: which modules; None for the main layers, `"all"`, or selectors: `"blocks"`, `"decoder"`, `"heads"` and
            `"experts"` of language models, names, globs, compiled patterns, modules, types, callables, lists of these.
        labels: what is to be decoded from the layers: an array with one entry a sample, a key of the batches, None
            for the labels that the batches hold, or False for none. Integers, strings and booleans are
            classes (of samples, or of positions if there is one for each), floating numbers a regression.
        mask: which positions exist: (samples, positions) as an array, a key of the batches, or a callable
            batch -> mask. None takes `attention_mask` where a batch has one.
        positions: which of the existing positions are read: `"all"`; `"no-sinks"`, at each layer those whose ‖a‖² is at
            most 100 times the median over their sample (language models put massive activations at their first
            token); `"first"`, `"last"` or a slice of each sample's; `"prompt"` or `"answer"`, where `labels` (samples,
            positions) are −100 or not; or a mask, as for `mask`, but beside it.
        tokenizer: of a language model; `data` is then a list of texts, or a pair of it and labels, one a text.
        forward: `forward(model, batch)` in place of the usual call; `kw.generate(max_new_tokens=64)` lets a language
            model answer prompts, see `ketwork.generate`.
        max_samples: take so many at most. Of data with a length they are drawn, as many of each label where labels are
            known, else at random, by the seed; of a stream they are the first. The record says which.
        batch_size: for data that is not batched yet.
        normalize: `"state"`, every ket has weight 1, or `"ensemble"`, weight ‖a‖², which makes ρ the
            normalised second moment of the raw activations.
        center: subtract the mean: ρ is then the covariance of the kets over its trace. With "ensemble" it is the
            covariance of the activations, whose spectrum is that of a principal component analysis. Zero vectors count
            in the latter, but not in the former, since they have no direction.
        exact: decompose layers of more than 4,096 features too, which takes O(d³): minutes each. Else these have 64
            leading eigenstates, and an estimate with an interval (`Estimate.bounds`) of entropy, ranks, coherence.
        seed: draws the samples kept for standard errors, and what the network itself draws at random: an integer or a
            generator.
        reading: how activations are read where the usual way is not right, see `Reading`.
        compare: keep what `Study.compare` needs: each layer's rows, one a sample, as in `ketwork.compare`. A number is
            how many seconds pairs of layers may take at the end, beside one decomposition a layer: those of adjacent
            layers first, which are compared whatever they take; the pairs that are not reached are missing.
        lens: of a language model, read what its final norm and head make of each row of the residual stream: KL from
            its predictions, entropy, agreement (`lens_…` in the table). Cost: the head, once a row and position.
        attention: read each head's attention pattern: entropy, weight on the first position, rank (`attention_…`), of
            rows that are heads (`layers="heads"`) or attention as a whole. The network computes attention plainly
            meanwhile, whose outputs are those of fused kernels but for rounding.
        memory: what the statistics of all layers may take, on top of the network and one batch of its activations and
            their kets: bytes, or a text such as "2GB". An extra forward pass of the first batch shows the layers'
            widths. Where their exact moments do not fit, the widest become sketches with a certified error, and each
            number that follows lies within its interval (`Estimate.bounds`). None: exact moments, but for layers of
            more than 16,384 features that are no outputs of a linear layer with far fewer inputs: these are sketches.
        on_plan: called with the `Plan` before anything is kept: what each layer takes, and the seconds of each batch
            and of the end (`end_seconds`), from counts of operations and the speed that this machine shows. Without
            `memory=` it takes that extra forward pass too; with it the record has the plan as `plan`.
        checkpoint: a folder (or a `Checkpoint` with its settings) that gets the state of the pass again and again and
            at its end, however it ends, in one step each; the last two are kept. One run at a time can use it. To
            resume, the batches that it has are read again, but not run; they, the network and all settings must be
            what they were.
        distributed: None studies here and now, whatever job this process is in. In a job of `torch.distributed` in
            which every process calls this: `"split"` or `"own"`, see `Distributed`. The result is that of one process
            over all of the data. A network that is sharded over processes (FSDP, tensor parallelism) needs them all in
            each forward pass: all must call this, with the same data, and each studies all of it.
        progress: True for a bar, or a function that is called with the number of samples so far, after every batch and
            at the end after every layer's decomposition. The bar shows the time left, that of the end too.

    Returns:
        A `Study`. With `distributed`, process 0 has the study of all data, and the others have None.

    Raises:
        SelectorError: `layers` names nothing.
        TypeError, ValueError: an argument is not what it must be, or the first batch already failed.
        StudyError: the data or a batch failed after others went through; `partial` is the study of those.
        CheckpointError: the folder's checkpoints are of another network, other data or settings (it says which), are
            there without being resumed, or belong to a run that has not ended.
        StudyInterrupted: on Ctrl-C, with what was gathered, and the numbers that a second gives; `partial.finish()`
            computes the others.
        ProcessError: in every process, where one failed or was not heard of; at process 0 `partial` is the study of
            what was gathered nevertheless.

    Cost: the forward passes (and two or three more, of at most six samples each, which find the axes;
    `settings["experiment_passes"]` counts them), O(d²) a ket and layer, O(d³) a layer at the end. Memory: O(d²) a
    layer, whatever the number of samples.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    >>> record = study(net, torch.randn(1000, 8))
    >>> [layer.name for layer in record], record["1"].d, record["1"].N
    (['0', '1'], 4, 1000)
    """
    check_arguments(normalize, batch_size, max_samples, compare)
    budget = None if memory is None else parse_bytes(memory)
    network = unwrapped(model, sharded=True)
    draw = generator_from(seed)
    saving = Checkpoint.from_argument(checkpoint)
    shares = Distributed.from_argument(distributed)
    place = _place_among(network, shares)
    if place is not None:
        shares = None
    chosen = ChosenPositions(positions)
    data, labels, mask, places, taken = drawn(tokenized(data, tokenizer), labels, mask, max_samples, seed)
    targets = Labels(labels)
    targets.check_names(max_samples)
    calls = reading.calls
    if isinstance(forward, Generate):
        forward.check(network, extras=lens or attention)
        forward, calls = forward.at(positions if isinstance(positions, str) else None), "pooled"
    settings = {
        "model": type(network).__name__,
        "layers": "default" if layers is None else str(layers),
        "normalize": normalize,
        "center": center,
        "exact": exact or None,
        "calls": calls,
        "positions": None if chosen.words == "all" else chosen.words,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "taken": taken,
        "skip_bad": reading.skip_bad,
        "lens": lens or None,
        "attention": attention or None,
        "memory": memory,
        "pairs_seconds": None if isinstance(compare, bool) else float(compare),
        "torch": torch.__version__,
    }
    within = chosen
    if isinstance(forward, Generate):
        settings["generate"] = forward.settings
        within = chosen if forward.positions == "all" else ChosenPositions()
    with join(shares) as group, contextlib.ExitStack() as stack:
        keep = Keep(normalize, reading.skip_bad, sums=own_sums(), center=center)
        gathered = StudyAccumulator(
            normalize, labels=targets, pairs=None if compare is False else PairMoments()
        )
        extras = extras_of(network, lens=lens, attention=attention)
        generator = draw if group is None else group.seeded(draw)
        run = Gathering(gathered, generator, keep, mask is not None, extras, within.at(places))
        live = stack.enter_context(
            capture(network, layers, receive=run.receive, **reading.for_capture | {"calls": calls})
        )
        for extra in extras:
            stack.enter_context(extra.watch(live))
        target = stack.enter_context(placed(network, reading.device))
        saved = None
        if saving is not None:
            bound = {
                **{name: value for name, value in settings.items() if name not in _FREE},
                "layers": list(live.selection.chosen),
                "seed": draw.initial_seed(),
                "compare": compare is not False,
                "labels": plain(labels),
                "mask": plain(mask),
                "forward": plain(forward),
                "feature_axis": plain(reading.feature_axis),
                "processes": None
                if shares is None or group is None
                else [shares.mode, group.rank, group.count],
            }
            rank = place if group is None else group.rank
            folder = Path(saving.path) if rank is None else Path(saving.path, f"process-{rank}")
            saved = stack.enter_context(
                open_checkpoints(saving, folder, GatheringState, of_network(network), bound)
            )
        key = labels if isinstance(labels, str) else None
        loop = Loop(run, live, saved, budget, on_plan, exact, forward, key)
        loop.resume(target)
        source = batches(
            data,
            batch_size=batch_size,
            max_samples=max_samples,
            mask=mask,
            dtype=dtype_of(network),
            device=target,
            mine=None if group is None else group.mine,
            feed_labels=needs_labels(network),
        )
        bar = stack.enter_context(show_progress(progress, max_samples))
        ending = stream(source, loop.take, progress=bar, at_end=lambda: loop.end(max_samples is not None))
        if group is None and isinstance(ending.error, CheckpointError):
            raise ending.error
        if group is None and ending.error is not None and run.gathered.batches == 0:
            raise ending.error
        result, ending = gathered_of(loop, ending)
        settings |= {"experiment_passes": live.axes.passes}
        on_stage = functools.partial(show_stage, None if ending.reason else bar, run.position)
        with without_children():
            if group is not None:
                return _together(group, result, ending, settings, on_stage)
            record, ending = computed(result, ending, settings, on_stage)
    complete = ended(record, ending)
    return None if place and distributed is not None else complete


def _place_among(network: nn.Module, shares: Distributed | None) -> int | None:
    """This process's number among those that hold parts of the network; None of one that this process has whole.

    Raises:
        ValueError: each process is to study data of its own.
    """
    if not is_sharded(network):
        return None
    if shares is not None and shares.mode == "own":
        raise ValueError(
            "Argument `distributed` is 'own', but the network is sharded over processes (FSDP or tensor parallelism): "
            "each forward pass needs all of them, and one with more data than another would wait for ever. Give all "
            "of them the same data, and leave it out, or use 'split' to have the study at process 0 alone."
        )
    return dist.get_rank()


def ended(record: Study | None, ending: Ending) -> Study:
    """The study, or its error with what was gathered."""
    if ending.interrupted:
        raise StudyInterrupted("the study was interrupted", record)
    if ending.error is not None:
        assert record is not None
        raise StudyError(
            f"{ending.sentence} What {record.samples} samples before it gave is in `partial` of this error.",
            record,
        ) from ending.error
    assert record is not None
    return record


def _together(
    group: Processes,
    gathered: StudyAccumulator,
    ending: Ending,
    settings: dict[str, Any],
    on_stage: OnStage,
) -> Study | None:
    """The study of what all processes gathered, at process 0."""
    if isinstance(ending.error, EmptyDataError):
        ending = Ending()
    key_stream = gathered.streams[0] if gathered.streams else None
    failures, stopped, messages = group.endings(ending, samples=gathered.samples, stream=key_stream)
    if group.split and len({each["stream"] for each in messages} - {None}) > 1:
        raise ProcessError(
            'Argument `distributed` is "split", but the processes were not given the same data, or not the same '
            '`seed`. Use "own" where each has data of its own.'
        )
    if not any(each["samples"] or each["error"] or each["interrupted"] for each in messages):
        raise EmptyDataError("Argument `data` must hold at least one sample, but is empty in all processes.")
    total = group.add_up(gathered)
    record = None
    if group.rank == 0 and total.batches:
        reason = "; ".join(failures) or (Ending(interrupted=True).reason if stopped else None)
        over = Ending(interrupted=stopped)
        record, over = computed(total, over, settings | {"processes": group.count}, on_stage, reason)
        stopped = over.interrupted
    if failures:
        raise ProcessError(
            f"In a job of {group.count} processes, {'; '.join(failures)}.", record
        ) from ending.error
    if stopped:
        raise StudyInterrupted("the study was interrupted", record)
    return record


_FREE = ("model", "layers", "taken", "pairs_seconds", "torch")
"""The settings that a checkpoint need not agree with as they are: all others it must."""
