"""`compare`: one streaming pass that says how alike every pair of layers is, within a model or between two."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ketwork._compat import moved, renamed
from ketwork.networks.activations import (
    Batch,
    EmptyDataError,
    Forward,
    Layers,
    Mask,
    Reading,
    batches,
    drawn,
    drawn_alike,
    is_sharded,
    needs_labels,
    neutral,
    switch,
    tokenized,
    unwrapped,
)
from ketwork.networks.comparison.accumulator import ComparisonAccumulator
from ketwork.networks.comparison.ending import compared
from ketwork.networks.comparison.result import FEWEST, SIDES, Comparison
from ketwork.networks.comparison.sides import MisalignedError, Side, choose, side_by_side
from ketwork.networks.comparison.weights import WeightChange, weighing
from ketwork.networks.measures import groups
from ketwork.networks.moments import MEMORY, NORMALIZATIONS, UNITS, PairMoments, sample_keys
from ketwork.networks.runtime import (
    Distributed,
    Ending,
    Interrupted,
    PartialError,
    ProcessError,
    Processes,
    Progress,
    Stage,
    join,
    parse_bytes,
    show_progress,
    show_stage,
    stream,
)
from ketwork.quantum import Seed, generator_from


class ComparisonError(PartialError):
    """A comparison failed after some batches: `partial` is that of those, or None of fewer than 4 samples."""


class ComparisonInterrupted(Interrupted):
    """Ctrl-C during a comparison; `partial` is that of what was gathered, or None of fewer than 4 samples."""


def _as_before(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `compare` be called as in version 0.1: `compare(a, b or None, data, positions=…, flatten=…)`."""

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        if "model_a" in given:
            given["model"] = given.pop("model_a")
        second = args[1] if len(args) > 1 else ()
        if "model_b" in given or second is None or isinstance(second, nn.Module):
            moved("`compare(a, b, data)` is now `compare(model, data, other=None)`.", level=3)
            other = given.pop("model_b") if "model_b" in given else second
            args, given = (*args[:1], *args[2:]), given | {"other": other}
        for old, unit in (("positions", UNITS[1]), ("flatten", UNITS[2])):
            if given.pop(old, False):
                moved(f"Argument `{old}` of `compare` is now `unit={unit!r}`.", level=3)
                given["unit"] = unit if "unit" not in given else None
        return function(*args, **given)

    return call


@renamed(
    groups={"reading": lambda reading: reading, "distributed": Distributed.from_argument},
    samples="max_samples",
    generator="seed",
    layers_b="other_layers",
    data_b="other_data",
    forward_b="other_forward",
    processes="distributed",
    timeout="distributed.timeout",
    calls="reading.calls",
    feature_axis="reading.feature_axis",
)
@_as_before
@neutral()
def compare(
    model: nn.Module,
    data: Any,
    other: nn.Module | None = None,
    *,
    layers: Layers = None,
    other_layers: Layers = None,
    other_data: Any = None,
    mask: Mask = None,
    tokenizer: Any = None,
    other_tokenizer: Any = None,
    forward: Forward | None = None,
    other_forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    measures: Collection[str] | None = None,
    unit: str = "sample",
    normalize: str = "ensemble",
    center: bool = True,
    weights: bool = True,
    seed: Seed = 0,
    reading: Reading = Reading(),  # noqa: B008  frozen
    memory: int | str = MEMORY,
    distributed: Distributed | str | None = None,
    progress: Progress = False,
) -> Comparison | None:
    """How alike every layer of a model is to every layer of another, or of its own, in one pass over data.

    With X (N × dₓ) and Y (N × d_y) what two layers put out for the same N samples, widths need not agree:

    - `cka`: linear CKA from HSIC₁, debiased over the full data, not batch by batch (Song et al. 2012, JMLR
      13:1393; Kornblith et al. 2019, arXiv 1905.00414). Features are centred by definition. Values below 0
      are chance, and shown as they are. `cka_biased` is the usual one: 0.909 for independent Gaussians with
      N = 100 and d = 1,000, where `cka` is 0.00.
    - `bures`: normalised Bures similarity ‖XᵀY‖_*/(‖X‖‖Y‖), which is the root fidelity √F of the sample-side
      states XXᵀ/Tr and YYᵀ/Tr (Harvey et al. 2023, arXiv 2311.11436). Features are centred unless
      `center=False`. It is not debiased: beside it stands `bures_null`, what unrelated layers with these
      spectra would give.
    - `cka_distance`, `bures_distance`: the angles whose cosines these are.
    - `r2`: the share of the column's layer that the best linear map of the row's explains, adjusted for the
      number of parameters; `r2_reverse` the other way round. Both centred. Axes lighter than rounding of float32
      values do not enter the map (each feature judged by its own size); `rank` of a layer counts those that do.

    None of them changes when either layer's features are rotated or scaled as a whole. Each but the chance level has a
    standard error (`stderrs`, `table`, `long`), from the influence of up to 128 samples that are kept in full; see
    docs/errors.md. Of two models, `changes` has the layers of one name side by side, and by how much their weights
    changed.

    Args:
        model: any module.
        data: as in `study`. Both models get the same batches.
        other: another module; None compares the model with itself. Of a network with adapters (peft), the base that
            they were put into: they are then switched off for it, batch by batch, which needs no second copy.
        layers, other_layers: which modules of each, as in `study`; without `other_layers`, `layers` goes for both.
        other_data: other data for the other model (its own tokenizer's, say): the same samples in the same order
            and batches of the same sizes.
        mask: which positions exist, as in `study`.
        tokenizer, other_tokenizer: as in `study`, of each network; without `other_tokenizer`, both get the same tokens.
        forward, other_forward: how to call each; without `other_forward`, `forward` goes for both.
        max_samples, batch_size, progress: as in `study`.
        measures: which of `"cka"`, `"bures"` and `"r2"` to compute, None for all; CKA alone is much the cheapest.
        unit: what is compared: `"sample"`, each sample's mean over its positions; `"position"`, every position as a
            row of its own, among the layers that have the same positions (the commonest number of them; the positions
            of a sample are not independent, so that CKA is over those of different samples, and chance levels and
            standard errors count samples); `"flat"`,
            positions and features together as the features of a sample, as torch-cka does (which also counts padding;
            here padding is 0), for which every batch must have the same positions.
        normalize: `"ensemble"`, rows as they are, or `"state"`, each scaled to a ket of norm 1.
        center: whether `bures` is of centred features; False leaves the origin in, as in a study's states, and
            gives no chance level.
        weights: whether the weights of two models are compared too, for `changes`. Costs the singular values of each
            matrix that changed, O(m n min(m, n)).
        seed: draws the projection, an integer or a generator.
        reading: how activations are read where the usual way is not right, see `Reading`.
        memory: bytes for what the pass keeps, or a text such as "2GB". Rows are kept while they are the smaller side,
            else cross moments; where both are larger than this, layers are projected at random to fewer dimensions, and
            `errors` of the result says by how much that may have changed each number (one standard deviation and bias,
            from the change that half the width makes).
        distributed: as in `study`.

    Returns:
        A `Comparison`. With `distributed`, process 0 has the comparison over all data, and the others have None.

    Raises:
        SelectorError: a selector names nothing.
        TypeError, ValueError: an argument is not what it must be, fewer than 4 samples, NaN or infinite values
            (layer, batch and sample are named), or `other_data` that disagrees on the samples.
        ComparisonError: the data or a batch failed after others went through; `partial` is the comparison of those.
        ComparisonInterrupted: on Ctrl-C, with the pairs that were compared, nearest layers first.
        ProcessError: as in `study`.

    Cost: the forward passes; then, for Bures and R², O(N dᵢ dⱼ) and an eigenvalue problem of min(d, N) for each
    pair; for CKA alone O(N² d) a layer while rows are kept. With `unit="position"` the products exceed the forward
    passes: choose layers.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    >>> alike = compare(net, torch.randn(500, 8))
    >>> float(alike.r2.loc["1", "2"].round(6)), float(alike.bures.loc["0", "0"])
    (1.0, 1.0)
    >>> alike.best_match()["match"].to_dict()
    {'0': '1', '1': '0', '2': '1'}
    """
    _check(measures, normalize, unit, batch_size, max_samples)
    inside = switch(model, other)
    sides = [
        Side(SIDES[0], unwrapped(model, sharded=True), layers, forward, unit, normalize, inside=inside[0])
    ]
    if other is not None:
        other_layers = layers if other_layers is None else other_layers
        other_forward = forward if other_forward is None else other_forward
        network = unwrapped(other, sharded=True)
        sides.append(Side(SIDES[1], network, other_layers, other_forward, unit, normalize, inside=inside[1]))
    elif other_data is not None or other_layers is not None or other_forward is not None:
        raise ValueError(
            "Arguments `other_data`, `other_layers` and `other_forward` need an `other` model, but it is None."
        )
    if distributed is not None and any(is_sharded(side.model) for side in sides):
        raise ValueError(
            f"Argument `distributed` is {distributed!r}, but a network is sharded over processes (FSDP or tensor "
            "parallelism), which all take part in each forward pass. Give all of them the same data, and leave it out."
        )
    if other_tokenizer is not None:
        other_data = tokenized(data if other_data is None else other_data, other_tokenizer)
    complete = data = tokenized(data, tokenizer)
    data, _, mask, places, taken = drawn(complete, None, mask, max_samples, seed)
    if places is not None and other_data is not None:
        other_data = drawn_alike(other_data, complete, places)
    draw = seed if isinstance(seed, int) else int(torch.randint(2**31, (), generator=generator_from(seed)))
    shares = Distributed.from_argument(distributed)
    settings = {
        "model": type(sides[0].model).__name__,
        "other": type(sides[-1].model).__name__,
        "layers": "default" if layers is None else str(layers),
        "unit": unit,
        "normalize": normalize,
        "center": center,
        "calls": reading.calls,
        "batch_size": batch_size,
        "max_samples": max_samples,
        "taken": taken,
        "memory": memory,
        "seed": draw,
        "torch": torch.__version__,
    }
    weigh, before = weighing(model, other) if weights else (lambda stopped: (), None)
    settings |= {} if before is None else {"before": SIDES[before]}
    with join(shares) as group, contextlib.ExitStack() as stack:
        for side in sides:
            side.enter(stack, reading)
        pairs = PairMoments(memory=parse_bytes(memory), seed=draw, clustered=unit == UNITS[1])
        run = _Run(sides, pairs)
        sources = [
            batches(
                source,
                batch_size=batch_size,
                max_samples=max_samples,
                mask=mask,
                dtype=side.dtype,
                mine=None if group is None else group.mine,
                feed_labels=needs_labels(side.model),
            )
            for source, side in zip([data] if other_data is None else [data, other_data], sides, strict=False)
        ]
        bar = stack.enter_context(show_progress(progress, max_samples))
        ending = stream(side_by_side(sources), run.take, progress=bar)
        gathered = run.finished()
        on_stage = functools.partial(show_stage, None if ending.reason else bar, run.done)
        if group is not None:
            return _together(group, gathered, ending, settings, measures, center, on_stage, weigh)
        n = gathered.pairs.n
        record = None
        if ending.error is None or (n >= FEWEST and not isinstance(ending.error, MisalignedError)):
            record, ending = compared(gathered, ending, settings, measures, center, on_stage, weigh)
    if ending.error is not None and (n < FEWEST or isinstance(ending.error, MisalignedError)):
        raise ending.error
    if ending.interrupted:
        raise ComparisonInterrupted("the comparison was interrupted", record)
    if ending.error is not None:
        raise ComparisonError(
            f"{ending.sentence} What {n} samples before it gave is in `partial` of this error.",
            record,
        ) from ending.error
    if record is None:
        raise ValueError(
            f"Argument `data` must hold at least {FEWEST} samples, but holds {n}: debiased CKA divides by N − 3."
        )
    return record


@dataclass
class _Run:
    """The pass: what is done with each batch of both models."""

    sides: list[Side]
    pairs: PairMoments
    done: int = 0

    def take(self, aligned: tuple[Batch, ...]) -> int:
        """Runs both models on a batch, unless another process takes it."""
        first = aligned[0]
        if not first.elsewhere:
            for side, batch in zip(self.sides, itertools.chain(aligned, aligned), strict=False):
                side.run(batch, self.done, self.sides[0].dtype)
            if self.pairs.n == 0:
                choose(self.sides)
            keys = sample_keys(self.done, first.size, self.pairs.seed)
            rows, owners = self.sides[0].rows, self.sides[0].owners
            owner = owners[len(next(iter(rows.values())))] if rows else slice(None)
            first_rows, *others = (side.rows for side in self.sides)
            self.pairs.add(first_rows, others[0] if others else None, keys[owner])
        self.done += first.size
        return self.done

    def finished(self) -> ComparisonAccumulator:
        """What was gathered."""
        layers = [pair for side in self.sides for pair in side.named()]
        skipped = {
            path if len(self.sides) == 1 else f"{side.name}: {path}": reason
            for side in self.sides
            for path, reason in side.skipped().items()
        }
        return ComparisonAccumulator(self.pairs, layers, skipped)


def _together(
    group: Processes,
    gathered: ComparisonAccumulator,
    ending: Ending,
    settings: dict[str, Any],
    measures: Collection[str] | None,
    center: bool,
    on_stage: Callable[[Stage], None],
    weigh: Callable[[Callable[[], bool]], tuple[WeightChange, ...]],
) -> Comparison | None:
    """The comparison over what all processes gathered, at process 0."""
    if isinstance(ending.error, EmptyDataError):
        ending = Ending()
    failures, stopped, messages = group.endings(ending, n=gathered.pairs.n)
    n = sum(each["n"] for each in messages)
    if n < FEWEST and not failures and not stopped:
        raise ValueError(
            f"Argument `data` must hold at least {FEWEST} samples, but holds {n} in {group.count} processes: "
            "debiased CKA divides by N − 3."
        )
    total = group.add_up(gathered)
    record = None
    if group.rank == 0 and n >= FEWEST:
        reason = "; ".join(failures) or (Ending(interrupted=True).reason if stopped else None)
        over = Ending(interrupted=stopped)
        shared = settings | {"processes": group.count}
        record, over = compared(total, over, shared, measures, center, on_stage, weigh, reason)
        stopped = over.interrupted
    if failures:
        raise ProcessError(
            f"In a job of {group.count} processes, {'; '.join(failures)}.", record
        ) from ending.error
    if stopped:
        raise ComparisonInterrupted("the comparison was interrupted", record)
    return record


def _check(
    measures: Collection[str] | None, normalize: str, unit: str, batch_size: int, max_samples: int | None
) -> None:
    known = tuple(groups())
    if isinstance(measures, str) or (
        measures is not None and (not measures or not set(measures) <= {*known})
    ):
        raise ValueError(f"Argument `measures` must be some of {known}, but is {measures!r}.")
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"Argument `normalize` must be one of {NORMALIZATIONS}, but is {normalize!r}.")
    if unit not in UNITS:
        raise ValueError(f"Argument `unit` must be one of {UNITS}, but is {unit!r}.")
    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but is {batch_size}.")
    if max_samples is not None and max_samples < FEWEST:
        raise ValueError(
            f"Argument `max_samples` must be at least {FEWEST}, but is {max_samples}: debiased CKA divides by N − 3."
        )
