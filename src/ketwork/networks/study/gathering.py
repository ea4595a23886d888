"""`Gathering`: the state of a study's one pass. A batch enters all layers' accumulators together, once it is over."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ketwork.networks.activations import (
    NEXT_TOKENS,
    Activation,
    Batch,
    ChosenPositions,
    Key,
    RefusedError,
    Seen,
    Source,
)
from ketwork.networks.moments import (
    BatchKeys,
    BatchPart,
    EntropySolver,
    Keep,
    Labelled,
    LayerAccumulator,
    Moment,
    NonFiniteActivationError,
    PairMoments,
    Positions,
    read_parts,
    sample_keys,
    sample_rows,
)
from ketwork.networks.runtime import (
    Bad,
    BadValues,
    Plan,
    Share,
    Width,
    key_stream,
    plan_memory,
    plan_without_limit,
    with_seconds,
)
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.extras import Extra
from ketwork.records import Count, Form, Malformed, pack, unpack

WIDEST = 16_384
"""Features of a layer beyond which its moment is a sketch: large vocabularies, of which the range takes as much."""

RANK = 64


@dataclass(frozen=True)
class GatheringState:
    """A pass between two batches, as a checkpoint has it; rows are keyed by the modules' paths and calls."""

    gathered: StudyAccumulator
    seen: Seen
    number: Count
    stream: Count | None
    generator: Annotated[Tensor, Form("byte state")]


@dataclass
class Gathering:
    """What the pass over the data has gathered so far, and the batch that is on its way.

    `number` counts the batches of the data that have gone by, `torn` says that a batch has entered some rows, and an
    error kept it from the others.
    """

    gathered: StudyAccumulator
    generator: torch.Generator
    keep: Keep
    must_mask: bool = False
    extras: tuple[Extra, ...] = ()
    positions: ChosenPositions = field(default_factory=ChosenPositions)
    number: int = 0
    stream: int | None = None
    torn: bool = False
    _rows: dict[Key, LayerAccumulator] = field(default_factory=dict)
    _batch: Batch | None = None
    _keys: BatchKeys = field(default_factory=lambda: BatchKeys(torch.empty(0)))
    _labels: Labelled | None = None
    _parts: dict[Key, BatchPart] = field(default_factory=dict)
    _pending: dict[Key, LayerAccumulator] = field(default_factory=dict)
    _solver: EntropySolver = field(default_factory=EntropySolver)
    _pooled: dict[Hashable, Tensor] = field(default_factory=dict)
    _bad: BadValues = field(default_factory=BadValues)
    _masked: bool = False
    _places: dict[Hashable, Positions] = field(default_factory=dict)
    _drawn: Tensor = field(init=False)  # the generator's state after the last batch

    def __post_init__(self) -> None:
        self._drawn = self.generator.get_state()

    @property
    def position(self) -> int:
        """How many samples of the data have gone by."""
        return self.gathered.position

    @property
    def draws(self) -> int:
        """The seed of what the network draws on the batch that is on its way."""
        return self.generator.initial_seed() + self.number

    def begin(self, batch: Batch) -> None:
        """A new batch; each of its samples draws the key that decides whether it stays in the reservoirs."""
        self._batch = batch
        if self.stream is None:
            self.stream = key_stream(self.generator, batch)
            self.generator = torch.Generator().manual_seed(self.stream)
        self._keys = BatchKeys(torch.rand(batch.size, generator=self.generator, dtype=torch.float64))
        labels = self.gathered.labels
        targets = labels.of_batch(batch.content, batch.labels, self.position, batch.size)
        per_position = labels.task == "positions"
        if targets is not None and (batch.shifted if labels.given is None else labels.shifted):
            self.gathered.note(NEXT_TOKENS)
        self._labels = None if targets is None else Labelled(targets, self.position, per_position)
        for part in (self._parts, self._pending, self._pooled, self._places, self._solver):
            part.clear()
        self._bad.clear()
        if not batch.elsewhere:
            self.positions.begin(batch, self.position)
            for mask in batch.masks:
                self._positions(mask.present, mask.present).prepared()
        for extra in self.extras:
            extra.begin(batch)

    def receive(self, activation: Activation) -> None:
        """Reduces one activation, inside the hook."""
        key = activation.key
        row = self._rows.get(key)
        device = activation.values.device
        if row is not None and row.moment.first.device != device:  # as a restored one is
            row = self._rows[key] = _moved(row, device).on_host()
        if row is not None and activation.values.shape[-1] != row.d:
            raise RefusedError(
                f"it had {row.d} features and now has {activation.values.shape[-1]}, so that axis "
                f"{activation.info.axis} of its output does not hold the same features in every batch. If another axis "
                f"holds them, say so with `reading=kw.Reading(feature_axis={{{key[0]!r}: …}})`"
            )
        present = self.positions.of(activation, self._present(activation))
        self._bad.order.append(key)
        share = self._share(activation)
        keep = self.keep
        if share is not None:
            keep = replace(keep, rank=share.rank, samples=share.samples, limits=share.limits)
        elif (d := activation.values.shape[-1]) > WIDEST and not _ranged(Width.from_activation(activation)):
            keep = replace(keep, rank=RANK)
            self.gathered.note(
                f"Layer {key[0]} has {d:,} features: it is kept as a sketch of rank {RANK}, since its exact moment "
                f"would take {8e-9 * d * d:.1f} GB. `memory=` gives it more, and `layers=` leaves it out."
            )
        positions = self._positions(activation.values, present)
        self._parts[key] = BatchPart.from_activation(
            activation, positions, self._keys, keep, self._solver, self._labels, row
        )
        if self._labels is not None and self._parts[key].accumulator.labelled is None:
            self.gathered.note(
                f"The labels have {self._labels.targets.shape[1]} positions, layer {key[0]} has "
                f"{activation.values.shape[1]}: its labels are not decoded.{self._labels.hint}"
            )
        for extra in self.extras:
            extra.take(activation, present)
        if self.gathered.pairs is not None:
            self._pooled[key] = sample_rows(activation.values, positions, normalize="ensemble")

    def settle(self, live: Source) -> None:
        """Reads what the hooks left on devices, with what the study's extras read.

        Layers whose values are not finite are skipped, where that is their own.

        Raises:
            ValueError: it is a sample's, or every layer's.
        """
        assert self._batch is not None
        for extra in self.extras:
            for key, name, sums in extra.sums():
                if key in self._parts:
                    self._parts[key].accumulator.sums[name] = sums
        read_parts(self._parts.values(), self._solver)
        for key, part in self._parts.items():
            try:
                self._pending[key] = part.finished()
            except NonFiniteActivationError as error:
                self._bad.bad[key] = Bad(error.samples, error.masked)
                self._pooled.pop(key, None)
        self._parts.clear()
        bad = self._bad
        if not bad.bad:
            return
        places = {key: bad.words(key, self.number, self.position) for key in bad.bad}
        first = min(bad.bad, key=bad.order.index)
        if not bad.of_layers(self._batch, self._rows.keys()):
            raise ValueError(
                f"Layer {first[0]!r} put out {places[first]}. Fix the data or the network there, or skip such samples "
                "with `reading=kw.Reading(skip_bad=True)` (--skip-bad)."
            )
        for key, words in places.items():
            live.refuse(key, f"it put out {words}")
        self.gathered.note(
            f"{len(places)} of {len(bad.order)} layers put out values that are not finite and are skipped: {first[0]} "
            f"put out {places[first]}."
        )

    def commit(self) -> None:
        """Adds the batch to every row.

        Raises:
            ValueError: a mask was given, but fits no layer that has positions.
        """
        assert self._batch is not None
        gathered = self.gathered
        if self.must_mask and not self._masked and gathered.notes:
            raise ValueError(f"Argument `mask` must fit the positions of a layer. {' '.join(gathered.notes)}")
        self.torn = True
        for key, part in self._pending.items():
            row = self._rows.get(key)
            if row is not None:
                row += part
                continue
            empty = Moment.empty(part.d, part.moment.first)
            empty += part.moment
            part.moment = empty
            self._rows[key] = part
        self._pending.clear()
        if gathered.pairs is not None and self._pooled:
            device = next(iter(self._pooled.values())).device
            finite = [rows.isfinite().all(dim=1).to(device) for rows in self._pooled.values()]
            good = torch.stack(finite).all(dim=0).cpu()
            finite_rows = {key: rows[good.to(rows.device)] for key, rows in self._pooled.items()}
            keys = sample_keys(self.position, len(good), gathered.pairs.seed)
            gathered.pairs.add(finite_rows, keys=keys[good])
        gathered.samples += self._batch.size
        gathered.batches += 1
        self.skip()
        self.torn = False

    def check_positions(self) -> None:
        """Sees that some positions were chosen.

        Raises:
            ValueError: none was.
        """
        rows = [row for row in self._rows.values() if row.info.positions]
        if self.positions.words != "all" and rows and not any(row.kets + row.zeros for row in rows):
            raise ValueError(
                f"Argument `positions` must choose among the positions of samples, but {self.positions.words!r} "
                "chooses no position of any."
            )

    def skip(self) -> None:
        """Lets the batch go by: its samples drew their keys and named their labels, whoever takes them in."""
        assert self._batch is not None
        self.gathered.position += self._batch.size
        self.number += 1
        self._drawn = self.generator.get_state()
        self.gathered.labels.commit()

    def plan(
        self, live: Source, batch: Batch, forward: Callable[[], None], memory: int | None, exact: bool = False
    ) -> Plan:
        """Plans the pass from the widths that its first batch shows: what `memory` allows, and how long it takes.

        Without a limit (None) the plan only says what there will be. `exact` says that wide layers are decomposed.
        """
        widths: dict[Key, Width] = {}

        def measure(activation: Activation) -> None:
            widths.setdefault(activation.key, Width.from_activation(activation))

        with live.receiving(measure):
            forward()
        gathered = self.gathered
        gathered.labels.of_batch(batch.content, batch.labels, self.position, batch.size)
        readable = {key: width for key, width in widths.items() if key not in live.refused}
        pairs, classes = gathered.pairs is not None, gathered.labels.classes
        if memory is None:
            ranks = {key: RANK for key, width in readable.items() if width.d > WIDEST and not _ranged(width)}
            plan = plan_without_limit(readable, ranks, classes=classes, pairs=pairs)
            return _named(with_seconds(plan, readable, exact), live)
        plan = plan_memory(readable, memory, classes=classes, pairs=pairs)
        gathered.plan = with_seconds(plan, readable, exact)
        if pairs:
            gathered.pairs = PairMoments(memory=plan.pairs // 2)
        return _named(gathered.plan, live)

    def state(self, live: Source) -> GatheringState:
        """All of the state after the last batch."""
        return GatheringState(self._raw(), live.seen(), self.number, self.stream, self._drawn)

    def restore(self, state: GatheringState, live: Source, device: torch.device) -> None:
        """Takes over a state; batches then continue to the same digits.

        The generator continues from where it was. The pairs of layers go to `device`, and each row to where its layer
        is, when it is next reached.

        Raises:
            Malformed: the generator's state is none.
        """
        gathered = state.gathered
        self.gathered.labels.take(gathered.labels.stored())
        if gathered.pairs is not None:
            gathered.pairs = _moved(gathered.pairs, device)
        self._rows = gathered.by_key
        self.gathered = replace(gathered, layers=[], labels=self.gathered.labels)
        self.number, self.stream = state.number, state.stream
        try:
            self.generator.set_state(state.generator.cpu())
        except RuntimeError as error:
            raise Malformed(f"the generator's state is none ({error})") from error
        self._drawn = self.generator.get_state()
        live.restore(state.seen)

    def finished(self, live: Source) -> StudyAccumulator:
        """What was gathered, its rows under the names by which they are shown."""
        gathered = self._raw()
        for note in live.notes:
            gathered.note(note)
        names = live.names(self._rows)
        places = {key: place for key, (place, _) in names.items()}
        layers = [replace(row, info=row.info.named(*names[row.info.key])) for row in gathered.layers]
        if gathered.pairs is not None:
            gathered.pairs.keys = [places.get(key, key) for key in gathered.pairs.keys]  # type: ignore[call-overload]
        return replace(
            gathered,
            layers=layers,
            plan=None if gathered.plan is None else _named(gathered.plan, live),
            skipped=live.reasons(),
            refused=sorted(places[key] for key in live.refused if key in places),
            streams=[] if self.stream is None else [self.stream],
        )

    def _raw(self) -> StudyAccumulator:
        return replace(self.gathered, layers=list(self._rows.values()))

    def _share(self, activation: Activation) -> Share | None:
        """What the layer may keep; one that the batch of the plan did not reach is added to that."""
        gathered = self.gathered
        if gathered.plan is None:
            return None
        share = gathered.plan.share(activation.key)
        if share is None:
            gathered.plan = gathered.plan.extended(Width.from_activation(activation), gathered.labels.classes)
            share = gathered.plan.shares[-1]
            over = gathered.plan.total - gathered.plan.memory
            gathered.note(
                f"Layer {activation.key[0]} was first reached in batch {self.number} (counted from 0), after the plan "
                f"of the memory: it is kept {'exactly' if share.rank is None else f'as a sketch of rank {share.rank}'}"
                + (f", {over / 1e6:.1f} MB beyond the budget." if over > 0 else ".")
            )
        return share

    def _positions(self, values: Tensor, present: Tensor | None) -> Positions:
        """Which vectors of an activation exist; layers with the same mask share it."""
        key = (*values.shape[:2], values.device, id(present))
        if key not in self._places:  # which keeps the mask, so that no other one has its id
            self._places[key] = Positions.of(values, present)
        return self._places[key]

    def _present(self, activation: Activation) -> Tensor | None:
        mask = activation.unfit
        if mask is not None:
            self.gathered.note(
                f"The mask has {mask.shape[1]} positions, layer {activation.key[0]} has {activation.values.shape[1]}: "
                "all of its positions count."
            )
        elif activation.present is not None:
            self._masked = True
        return activation.present


def _ranged(width: Width) -> bool:
    """Whether a layer lies in a range that takes no more than the exact moment of the widest layer."""
    return width.span is not None and width.span * width.d * width.itemsize <= 8 * WIDEST**2


def _named(planned: Plan, live: Source) -> Plan:
    """The plan with the names that the layers' rows will have."""
    names = live.names([(share.layer, share.call) for share in planned.shares])
    return planned.named({key: name for key, (name, _) in names.items()})


def _moved(part: Any, device: torch.device) -> Any:
    """An accumulator on a device."""
    header, tensors = pack(part)
    return unpack(type(part), header, {name: tensor.to(device) for name, tensor in tensors.items()})
