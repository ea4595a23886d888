"""The state of a study's one pass: each row's statistics, into which every batch enters as a whole."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ketwork.networks.activations.batches import Batch
from ketwork.networks.activations.captures import Activation, Key, as_key
from ketwork.networks.activations.labels import Labels
from ketwork.networks.comparison.run import sample_rows
from ketwork.networks.moments.accumulator import NORMALIZATIONS, LayerStatistics, NonFiniteActivationError
from ketwork.networks.moments.labelled_moments import LabelledStatistics
from ketwork.networks.moments.moment import Moment
from ketwork.networks.moments.pair_moments import PairMoments
from ketwork.networks.moments.reservoir import SAMPLES
from ketwork.networks.runtime.memory import Plan, Share, Width
from ketwork.networks.runtime.seeding import stream
from ketwork.records.checked import Count, Malformed, check, check_tensors
from ketwork.records.storage import under


@dataclass
class Row:
    """A row: its first activation, without values, and what was gathered since."""

    first: Activation
    statistics: LayerStatistics
    labelled: LabelledStatistics | None

    def header(self) -> dict[str, Any]:
        """The plain values of a file; `tensors` has the rest."""
        return {
            "key": list(self.first.key),
            "kind": self.first.kind,
            "positions": self.first.positions,
            "leaf": self.first.leaf,
            "axis": self.first.axis,
            "statistics": self.statistics.header(),
            "labelled": None if self.labelled is None else self.labelled.header(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        known = {} if self.labelled is None else self.labelled.tensors()
        return self.statistics.tensors() | {f"{_LABELLED}{name}": tensor for name, tensor in known.items()}

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Row:
        """The row that `header` and `tensors` described."""
        check(header, _ROW, "row")
        statistics = LayerStatistics.from_header(header["statistics"], tensors)
        labelled = None
        if header["labelled"] is not None:
            labelled = LabelledStatistics.from_header(header["labelled"], under(_LABELLED, tensors))
            d = labelled.sums.moments.d
            if d != statistics.d * (2 if labelled.complex else 1):
                raise Malformed(f"a row of {statistics.d} features has labelled kets of {d}")
        first = Activation(
            as_key(header["key"]),
            header["kind"],
            statistics.reservoir.kets.new_empty(0),
            header["positions"],
            None,
            header["leaf"],
            header["axis"],
        )
        return cls(first, statistics, labelled)

    def to(self, device: torch.device) -> Row:
        """The row on a device."""
        return Row.from_header(self.header(), {name: t.to(device) for name, t in self.tensors().items()})


@dataclass
class Pass:
    """The state of the one pass: a batch's statistics enter all rows together, once its forward pass is over.

    `samples` and `batches` count what was taken in; `position` and `number` what of the data has gone by, which is
    more where other processes take in the rest. `stream` is the seed of the samples' keys, None before any was drawn.
    """

    normalize: str
    generator: torch.Generator
    skip_bad: bool
    must_mask: bool
    labels: Labels
    pairs: PairMoments | None
    plan: Plan | None = None
    samples: int = 0
    batches: int = 0
    rows: dict[Key, Row] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    torn: bool = False  # a batch has entered some rows, and an error kept it from the others
    position: int = 0
    number: int = 0
    stream: int | None = None
    _batch: Batch | None = None
    _keys: Tensor = field(default_factory=lambda: torch.empty(0))
    _targets: Tensor | None = None
    _pending: dict[Key, Row] = field(default_factory=dict)
    _pooled: dict[Hashable, Tensor] = field(default_factory=dict)
    _masked: bool = False
    _drawn: Tensor = field(init=False)  # the generator's state after the last batch
    _named: int = field(init=False)  # the labels that were known then

    def __post_init__(self) -> None:
        self._drawn, self._named = self.generator.get_state(), len(self.labels.names)

    def header(self) -> dict[str, Any]:
        """All of the state after the last batch but its tensors, as plain values, for `restore`."""
        return {
            "normalize": self.normalize,
            "skip_bad": self.skip_bad,
            "must_mask": self.must_mask,
            "samples": self.samples,
            "batches": self.batches,
            "position": self.position,
            "number": self.number,
            "stream": self.stream,
            "notes": list(self.notes),
            "labels": self.labels.header(self._named),
            "rows": [row.header() for row in self.rows.values()],
            "plan": None if self.plan is None else self.plan.header(),
            "pairs": None if self.pairs is None else self.pairs.header(),
            "pair_keys": [] if self.pairs is None else [list(cast(Key, key)) for key in self.pairs.keys],
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the state after the last batch."""
        found = {"generator": self._drawn}
        for i, row in enumerate(self.rows.values()):
            found |= {f"{i}.{name}": tensor for name, tensor in row.tensors().items()}
        if self.pairs is not None:
            found |= {f"{_PAIRS}{name}": tensor for name, tensor in self.pairs.tensors().items()}
        return found

    def restore(
        self, header: dict[str, Any], tensors: dict[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Takes over the state that `header` and `tensors` described; batches then go on to the same digits.

        The generator goes on from where it was. The pairs of layers go to `device`, and each row to where its layer
        is, when it is next reached.

        Raises:
            Malformed: they describe none.
        """
        check(header, _HEADER, "pass")
        for name in (
            "normalize",
            "skip_bad",
            "must_mask",
            "samples",
            "batches",
            "position",
            "number",
            "stream",
        ):
            setattr(self, name, header[name])
        self.notes = dict.fromkeys(header["notes"])
        self.labels.restore(header["labels"])
        found = [Row.from_header(row, under(f"{i}.", tensors)) for i, row in enumerate(header["rows"])]
        self.rows = {row.first.key: row for row in found}
        keys = [as_key(key) for key in header["pair_keys"]]
        if len(self.rows) != len(found) or not self.rows.keys() >= {*keys}:
            raise Malformed("the rows of a pass must have keys of their own, and its pairs must be of rows")
        for row in found if self.labels.task != "values" else ():
            if row.labelled is not None and row.labelled.classes > len(self.labels.names):
                raise Malformed(
                    f"a pass of {len(self.labels.names)} labels has kets of {row.labelled.classes}"
                )
        self.plan = None if header["plan"] is None else Plan.from_header(header["plan"])
        self.pairs = None
        if header["pairs"] is not None:
            check(header["pairs"], {"widths": [Count]}, "pairs")
            for key, width in zip(keys, header["pairs"]["widths"], strict=False):
                statistics = self.rows[key].statistics
                if width != statistics.d * (2 if statistics.moment.first.is_complex() else 1):
                    raise Malformed(
                        f"layer {key[0]!r} of {statistics.d} features has {width} of them in pairs"
                    )
            held = {name: tensor.to(device) for name, tensor in under(_PAIRS, tensors).items()}
            self.pairs = PairMoments.from_header(header["pairs"], held, keys)
        check_tensors(tensors, {}, generator="byte state")
        try:
            self.generator.set_state(tensors["generator"].cpu())
        except RuntimeError as error:
            raise Malformed(f"the generator's state is none ({error})") from error
        self._drawn, self._named = self.generator.get_state(), len(self.labels.names)

    def begin(self, batch: Batch) -> None:
        """A new batch; each of its samples draws the key that decides whether it stays in the reservoirs."""
        self._batch = batch
        if self.stream is None:
            self.stream = stream(self.generator, batch)
            self.generator = torch.Generator().manual_seed(self.stream)
        self._keys = torch.rand(batch.size, generator=self.generator, dtype=torch.float64)
        self._targets = self.labels.of(batch.content, batch.labels, self.position, batch.size)
        self._pending.clear()
        self._pooled.clear()

    def receive(self, activation: Activation) -> None:
        """Reduces one activation, inside the hook."""
        row = self.rows.get(activation.key)
        if row is not None and row.first.values.device != activation.values.device:  # as a restored one is
            row = self.rows[activation.key] = row.to(activation.values.device)
        if row is not None and activation.values.shape[-1] != row.statistics.d:
            raise ValueError(
                f"Layer {activation.key[0]!r} had {row.statistics.d} features and now has "
                f"{activation.values.shape[-1]}: axis {activation.axis} of its output does not hold its features. "
                f"Say which does with `feature_axis={{{activation.key[0]!r}: ...}}`."
            )
        present = self._present(activation)
        share = self._share(activation)
        try:
            statistics = LayerStatistics.of(
                activation.values,
                present,
                self._keys,
                positions=activation.positions,
                normalize=self.normalize,
                worst=row.statistics.reservoir.worst if row is not None else float("inf"),
                drop_bad=self.skip_bad,
                limit=share.rank if share is not None else None,
                kept=share.samples if share is not None else SAMPLES,
            )
        except NonFiniteActivationError as bad:
            raise ValueError(self._told(activation.key[0], bad)) from bad
        labelled = None
        if self._targets is not None:
            per_position = self.labels.task == "positions"
            labelled = LabelledStatistics.of(
                activation.values,
                present,
                self._targets,
                self._keys,
                self.position,
                per_position,
                share.room if share is not None else None,
            )
            if labelled is None:
                self.notes[
                    f"The labels have {self._targets.shape[1]} positions, layer {activation.key[0]} has "
                    f"{activation.values.shape[1]}: it is not asked about them."
                ] = None
        self._pending[activation.key] = Row(_without_values(activation), statistics, labelled)
        if self.pairs is not None:
            self._pooled[activation.key] = sample_rows(activation.values, present, normalize="ensemble")

    def commit(self) -> None:
        """Adds the batch's statistics to every row.

        Raises:
            ValueError: a mask was given, but fits no layer that has positions.
        """
        assert self._batch is not None
        if self.must_mask and not self._masked and self.notes:
            raise ValueError(f"Argument `mask` must fit the positions of a layer. {' '.join(self.notes)}")
        self.torn = True
        for key, new in self._pending.items():
            if key not in self.rows:
                empty = Moment.empty(new.statistics.d, new.statistics.moment.first)
                empty += new.statistics.moment
                new.statistics.moment = empty
                self.rows[key] = new
                continue
            row = self.rows[key]
            row.statistics += new.statistics
            if row.labelled is None or new.labelled is None:
                row.labelled = None  # the parts are the same samples at every layer, or there are none
            else:
                row.labelled += new.labelled
        self._pending.clear()
        if self.pairs is not None and self._pooled:
            good = torch.stack([rows.isfinite().all(dim=1).cpu() for rows in self._pooled.values()]).all(
                dim=0
            )
            self.pairs.add({key: rows[good.to(rows.device)] for key, rows in self._pooled.items()})
        self.samples += self._batch.size
        self.batches += 1
        self.skip()
        self.torn = False

    def skip(self) -> None:
        """Lets the batch go by: its samples drew their keys and named their labels, whoever takes them in."""
        assert self._batch is not None
        self.position += self._batch.size
        self.number += 1
        self._drawn, self._named = self.generator.get_state(), len(self.labels.names)

    def take(self, other: Pass, start: int) -> None:
        """Adds what another pass gathered, whose samples stand `start` places later in the data than it counted them.

        Layers are found by their keys. The other's tensors may be shared afterwards, none is changed.

        Raises:
            ValueError: the same layer has other widths, or labels are of another kind.
        """
        if not other.batches:
            return
        if self.batches and (self.labels.task is None) != (other.labels.task is None):
            self.notes[_PARTLY_LABELLED] = None
        codes = self.labels.joined(other.labels)
        for key, row in other.rows.items():
            labelled = row.labelled.moved(codes, start) if row.labelled is not None else None
            known = self.rows.get(key)
            if known is None:
                self.rows[key] = Row(row.first, copy.deepcopy(row.statistics), labelled)
                continue
            if known.statistics.d != row.statistics.d:
                raise ValueError(
                    f"Layer {key[0]!r} has {known.statistics.d} features in one part and {row.statistics.d} in another."
                )
            known.statistics += replace(row.statistics, reservoir=copy.copy(row.statistics.reservoir))
            if known.labelled is None or labelled is None:
                known.labelled = None
            else:
                known.labelled += labelled
        if self.pairs is not None and other.pairs is not None:
            self.pairs += other.pairs
        elif self.pairs is not None or other.pairs is not None:
            self.pairs = None
            self.notes[_PARTLY_COMPARED] = None
        self.notes |= other.notes
        self.samples += other.samples
        self.batches += other.batches
        self.position = max(self.position, start + other.position)
        self.number = max(self.number, other.number)
        self.stream = other.stream if self.stream is None else self.stream
        self.plan = self.plan or other.plan
        self._named = len(self.labels.names)

    def _share(self, activation: Activation) -> Share | None:
        """What the layer may keep; one that the batch of the plan did not reach is added to that."""
        if self.plan is None:
            return None
        share = self.plan.share(activation.key)
        if share is None:
            self.plan = self.plan.extended(Width.of(activation), self.labels.classes)
            share = self.plan.shares[-1]
            over = self.plan.total - self.plan.memory
            self.notes[
                f"Layer {activation.key[0]} was first reached in batch {self.number} (counted from 0), after the plan "
                f"of the memory: it is kept {'exactly' if share.rank is None else f'as a sketch of rank {share.rank}'}"
                + (f", {over / 1e6:.1f} MB beyond the budget." if over > 0 else ".")
            ] = None
        return share

    def _present(self, activation: Activation) -> Tensor | None:
        assert self._batch is not None
        if activation.present is not None:
            return activation.present
        mask = self._batch.mask
        if mask is None or not activation.positions:
            return None
        if mask.shape == activation.values.shape[:2]:
            self._masked = True
            return mask
        self.notes[
            f"The mask has {mask.shape[1]} positions, layer {activation.key[0]} has {activation.values.shape[1]}: "
            "all of its positions count."
        ] = None
        return None

    def _told(self, layer: str, bad: NonFiniteActivationError) -> str:
        shown = [self.position + i for i in bad.samples[:5]]
        more = f" and {len(bad.samples) - 5} more" if len(bad.samples) > 5 else ""
        return (
            f"Layer {layer!r} put out NaN or infinite values in batch {self.number}, sample "
            f"{', '.join(map(str, shown))}{more} (counted from 0). Mend the data or the network there, or leave "
            "such samples out with `skip_bad=True` (--skip-bad)."
        )


_PARTLY_LABELLED = "Only a part of the data has labels: layers are not asked about them."
_PARTLY_COMPARED = (
    "Only a part of the data kept what comparing layers takes, so that they are not compared. Study each part with "
    "`compare=True`."
)
_LABELLED = "labelled."
_PAIRS = "pairs."
_ROW = {
    "key": list,
    "kind": str,
    "positions": bool,
    "leaf": str,
    "axis": int,
    "statistics": dict,
    "labelled": (dict, None),
}
_HEADER = {
    "normalize": NORMALIZATIONS,
    "skip_bad": bool,
    "must_mask": bool,
    "samples": Count,
    "batches": Count,
    "position": Count,
    "number": Count,
    "stream": (Count, None),
    "notes": [str],
    "labels": dict,
    "rows": [dict],
    "plan": (dict, None),
    "pairs": (dict, None),
    "pair_keys": [list],
}


def _without_values(activation: Activation) -> Activation:
    return Activation(
        activation.key,
        activation.kind,
        activation.values.new_empty(0),
        activation.positions,
        None,
        activation.leaf,
        activation.axis,
    )
