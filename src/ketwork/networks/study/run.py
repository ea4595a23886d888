"""`study`: one streaming pass over data that gives every layer's state, with error bars."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ketwork.networks.activations.axes import FeatureAxis
from ketwork.networks.activations.batches import Batch, EmptyDataError, Forward, Mask, batches
from ketwork.networks.activations.captures import Activation, Capture, Key, capture, unwrapped
from ketwork.networks.activations.labels import Labels
from ketwork.networks.activations.selectors import Layers
from ketwork.networks.moments.accumulator import NORMALIZATIONS
from ketwork.networks.moments.pair_moments import PairMoments
from ketwork.networks.runtime.checkpoints import EVERY, CheckpointError, checkpoints
from ketwork.networks.runtime.distributed import TIMEOUT, ProcessError, Processes, joined
from ketwork.networks.runtime.fingerprints import of_network
from ketwork.networks.runtime.memory import Plan, Width, parse, plan
from ketwork.networks.study.gathered import Gathered, named_plan
from ketwork.networks.study.passing import Pass
from ketwork.networks.study.result import Study
from ketwork.records.signals import deferred, without_children


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C during a study; `study` holds what was gathered, or None if no batch was finished."""

    def __init__(self, study: Study | None) -> None:
        super().__init__("the study was interrupted")
        self.study = study


def study(
    model: nn.Module,
    data: Any,
    *,
    layers: Layers = None,
    labels: Any = None,
    mask: Mask = None,
    forward: Forward | None = None,
    samples: int | None = None,
    batch_size: int = 64,
    normalize: str = "state",
    center: bool = False,
    calls: str = "separate",
    feature_axis: FeatureAxis = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    skip_bad: bool = False,
    compare: bool = False,
    memory: int | str | None = None,
    planned: Callable[[Plan], None] | None = None,
    checkpoint: str | Path | None = None,
    every: int = EVERY,
    resume: bool = False,
    processes: str | None = None,
    timeout: float = TIMEOUT,
    progress: Callable[[int], None] | None = None,
) -> Study:
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
        layers: which modules; None for those a reader would draw, `"all"`, `"blocks"`, or selectors: names,
            globs, compiled patterns, modules, types, callables, lists of these.
        labels: what the layers are asked about: an array with one entry a sample, a key of the batches, None
            for the labels that the batches hold, or False for none. Integers, strings and booleans are
            classes (of samples, or of positions if there is one for each), floating numbers a regression.
        mask: which positions exist: (samples, positions) as an array, a key of the batches, or a callable
            batch -> mask. None takes `attention_mask` where a batch has one.
        forward: `forward(model, batch)` in place of the usual call.
        samples: stop after so many.
        batch_size: for data that is not batched yet.
        normalize: `"state"`, every ket has weight 1, or `"ensemble"`, weight ‖a‖², which makes ρ the
            normalised second moment of the raw activations.
        center: subtract the mean: ρ is then the covariance of the kets (with "ensemble", of the activations)
            over its trace.
        calls: `"separate"` gives each call of a module in one forward pass its own row, `"pooled"` one row.
        feature_axis: the axis of features where the choice by module type is wrong: an axis, a mapping
            from layer names to axes, or a callable (name, module, output) -> axis.
        device: where to run; None leaves the network where it is. It goes back there afterwards.
        generator: draws the samples kept for standard errors; None is a fixed seed.
        skip_bad: leave out, and count, samples with NaN or infinite activations instead of stopping.
        compare: keep what `Study.compare` needs: each layer's rows, one a sample, as in `ketwork.compare`.
        memory: what the statistics of all layers may take, on top of the network and one batch of its activations and
            their kets: bytes, or a text such as "2GB". An extra forward pass of the first batch shows the layers'
            widths. Where their exact moments do not fit, the widest become sketches with a certified error, and each
            number that follows lies within its interval (`Estimate.bounds`). None: exact.
        planned: called with the `Plan` of the memory before anything is kept; the record has it as `plan`.
        checkpoint: a folder that gets the state of the pass after `every` batches and at its end, however it ends, in
            one step each; the last two are kept. One run at a time can use it. A run that was killed loses `every`
            batches of work at most.
        every: batches from one checkpoint to the next.
        resume: go on from the newest whole checkpoint in the folder, if there is one, to the same result as if nothing
            had happened. The batches that it has are read again, but not run; they, the network and all settings
            must be what they were.
        processes: None studies here and now, whatever job this process is in. In a job of `torch.distributed` in which
            every process calls this: `"split"`, all are given the same data, and process r of W takes the batches
            r, r + W, … of it; `"own"`, each is given its own part of the data (as a `DistributedSampler` gives it), of
            any length, none included. The result is that of one process over all of it.
        timeout: seconds that a process waits at the end for another one, which may be slower.
        progress: called with the number of samples that have gone by, after every batch.

    Returns:
        A `Study`. If a batch fails after others went through, the study of those, with `error` set. With `processes`,
        process 0 has the study of all data, and the others have None.

    Raises:
        SelectorError: `layers` names nothing.
        TypeError, ValueError: an argument is not what it must be, or the first batch already failed.
        CheckpointError: the folder's checkpoints are of another network, other data or settings (it says which), are
            there without `resume`, or belong to a run that has not ended.
        StudyInterrupted: on Ctrl-C, with what was gathered.
        ProcessError: in every process, where one failed or was not heard of; at process 0 `found` is the study of what
            was gathered nevertheless.

    Cost: the forward passes, O(d²) a ket and layer, O(d³) a layer at the end. Memory: O(d²) a layer, whatever
    the number of samples.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    >>> record = study(net, torch.randn(1000, 8))
    >>> [layer.name for layer in record], record["1"].d, record["1"].N
    (['0', '1'], 4, 1000)
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"Argument `normalize` must be one of {NORMALIZATIONS}, but is {normalize!r}.")
    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but is {batch_size}.")
    if samples is not None and samples < 1:
        raise ValueError(f"Argument `samples` must be at least 1, but is {samples}. Leave it out for all.")
    if every < 1:
        raise ValueError(f"Argument `every` must be at least 1, but is {every}.")
    if resume and checkpoint is None:
        raise ValueError("Argument `resume` needs a folder to go on from. Give `checkpoint=` (--checkpoint).")
    budget = None if memory is None else parse(memory)
    network = unwrapped(model)
    draw = generator if generator is not None else torch.Generator().manual_seed(0)
    with joined(processes, timeout) as group:
        run = Pass(
            normalize,
            draw if group is None else group.seeded(draw),
            skip_bad,
            mask is not None,
            Labels(labels),
            PairMoments() if compare else None,
        )
        home = _device(network)
        target = torch.device(device) if device is not None else home
        key = labels if isinstance(labels, str) else None
        error: Exception | None = None
        interrupted = False
        settings = {
            "model": type(network).__name__,
            "layers": "default" if layers is None else str(layers),
            "normalize": normalize,
            "center": center,
            "calls": calls,
            "batch_size": batch_size,
            "samples": samples,
            "skip_bad": skip_bad,
            "memory": memory,
            "torch": torch.__version__,
        }
        with contextlib.ExitStack() as stack:
            live = stack.enter_context(
                capture(network, layers, receive=run.receive, calls=calls, feature_axis=feature_axis)
            )
            saved = None
            if checkpoint is not None:
                belongs = {
                    **{name: settings[name] for name in _BINDING},
                    "layers": list(live.selection.chosen),
                    "seed": draw.initial_seed(),
                    "compare": compare,
                    "labels": _told(labels),
                    "mask": _told(mask),
                    "forward": _told(forward),
                    "feature_axis": _told(feature_axis),
                    "processes": None if group is None else [processes, group.rank, group.count],
                }
                folder = Path(checkpoint) if group is None else Path(checkpoint, f"process-{group.rank}")
                saved = stack.enter_context(checkpoints(folder, every, resume, of_network(network), belongs))
                saved.restore(run, live, target)
            source = batches(
                data,
                batch_size=batch_size,
                samples=samples,
                mask=mask,
                dtype=_dtype(network),
                device=target,
                mine=None if group is None else group.mine,
            )
            try:
                if device is not None:
                    network.to(target)
                for batch in source:
                    if saved is not None and saved.has(batch, run):
                        continue

                    def call(net: nn.Module, batch: Batch = batch) -> Any:
                        return batch.run(net, forward, key)

                    if budget is not None and run.plan is None and not batch.elsewhere:
                        _plan(run, live, batch, call, budget)
                        if planned is not None and run.plan is not None:
                            planned(named_plan(run.plan, live))
                    run.begin(batch)
                    if batch.elsewhere:
                        run.skip()
                        if saved is not None:
                            saved.add(batch, run)
                        continue
                    live.forward(call, batch.size)
                    with deferred():
                        run.commit()
                        if saved is not None:
                            saved.add(batch, run)
                    if saved is not None:
                        saved.save_if_due(run, live)
                    if progress is not None:
                        progress(run.position)
                if saved is not None:
                    saved.ended()
                run.labels.check_length(run.position, limited=samples is not None)
            except CheckpointError as failure:
                if group is None:
                    raise
                error = failure
            except KeyboardInterrupt:
                interrupted = True
            except Exception as failure:
                error = failure
                if group is None and run.batches == 0:
                    raise
            finally:
                if device is not None:
                    network.to(home)
            if saved is not None:
                with without_children():
                    saved.save(run, live)
        found = Gathered.of(run, live)
        with without_children():
            if group is not None:
                return _together(group, found, error, interrupted, settings)
            why = INTERRUPTION if interrupted else error
            record = Study.of(found, settings, why) if run.batches else None
        if interrupted:
            raise StudyInterrupted(record)
        assert record is not None
        return record


INTERRUPTION = "interrupted"


def _together(
    group: Processes, found: Gathered, error: Exception | None, interrupted: bool, settings: dict[str, Any]
) -> Study:
    """The study of what all processes gathered, at process 0."""
    run = found.run
    empty = isinstance(error, EmptyDataError)
    told = group.exchange(
        {
            "error": None if error is None or empty else f"{type(error).__name__}: {error}",
            "interrupted": interrupted,
            "samples": run.samples,
            "stream": run.stream,
        }
    )
    if group.split and len({one["stream"] for one in told} - {None}) > 1:
        raise ProcessError(
            'Argument `processes` is "split", but the processes were not given the same data, or not the same '
            '`generator`. Use "own" where each has data of its own.'
        )
    if not any(one["samples"] or one["error"] or one["interrupted"] for one in told):
        raise EmptyDataError("Argument `data` must hold at least one sample, but is empty in all processes.")
    found = group.add_up(found, Gathered.from_header)
    failures = [f"process {rank} failed ({one['error']})" for rank, one in enumerate(told) if one["error"]]
    stopped = any(one["interrupted"] for one in told)
    record = None
    if group.rank == 0 and found.run.batches:
        why = "; ".join(failures) or (INTERRUPTION if stopped else None)
        record = Study.of(found, settings | {"processes": group.count}, why)
    if failures:
        raise ProcessError(f"In a job of {group.count} processes, {'; '.join(failures)}.", record) from error
    if stopped:
        raise StudyInterrupted(record)
    return record  # type: ignore[return-value]  # None in the other processes, as documented


_BINDING = ("normalize", "center", "calls", "batch_size", "samples", "skip_bad", "memory")
"""The settings that a checkpoint must agree with as they are."""


def _told(argument: Any) -> Any:
    """A plain value that tells arguments of different kinds apart, the same in every process."""
    if argument is None or isinstance(argument, bool | int | str):
        return argument
    if isinstance(argument, Mapping):
        return {str(name): _told(value) for name, value in argument.items()}
    return "a function" if callable(argument) else "an array"


def _plan(run: Pass, live: Capture, batch: Batch, call: Callable[[nn.Module], Any], memory: int) -> None:
    """Plans the memory of the pass, from the widths that its first batch shows."""
    widths: dict[Key, Width] = {}

    def measure(found: Activation) -> None:
        widths.setdefault(found.key, Width.of(found))

    live.receive, receive = measure, live.receive
    try:
        live.forward(call, batch.size)
    finally:
        live.receive = receive
    run.labels.of(batch.content, batch.labels, run.position, batch.size)
    shown = {key: width for key, width in widths.items() if key not in live.refused}
    run.plan = plan(shown, memory, classes=run.labels.classes, pairs=run.pairs is not None)
    if run.pairs is not None:
        run.pairs = PairMoments(memory=run.plan.pairs // 2)


def _device(model: nn.Module) -> torch.device:
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return first.device if first is not None else torch.device("cpu")


def _dtype(model: nn.Module) -> torch.dtype | None:
    found = (p.dtype for p in model.parameters() if p.is_floating_point() or p.is_complex())
    return next(found, torch.get_default_dtype())
