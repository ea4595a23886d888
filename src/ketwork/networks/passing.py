"""The state of a study's one pass: each row's statistics, into which every batch enters as a whole."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch

from ketwork.networks.batches import Batch
from ketwork.networks.budget import Plan, Share, Width
from ketwork.networks.capture import Activation, Key
from ketwork.networks.compare import sample_rows
from ketwork.networks.labelled import LabelledStatistics
from ketwork.networks.labels import Labels
from ketwork.networks.moments import Moment
from ketwork.networks.pairs import PairMoments
from ketwork.networks.reservoir import SAMPLES
from ketwork.networks.statistics import LayerStatistics, NonFiniteActivationError


@dataclass
class Row:
    """A row: its first activation, without values, and what was gathered since."""

    first: Activation
    statistics: LayerStatistics
    labelled: LabelledStatistics | None


@dataclass
class Pass:
    """The state of the one pass: a batch's statistics enter all rows together, once its forward pass is over."""

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
    _batch: Batch | None = None
    _keys: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    _targets: torch.Tensor | None = None
    _pending: dict[Key, Row] = field(default_factory=dict)
    _pooled: dict[Hashable, torch.Tensor] = field(default_factory=dict)
    _masked: bool = False
    _seed: int = field(init=False)

    def __post_init__(self) -> None:
        self._seed = int(torch.randint(2**62, (), generator=self.generator))

    def begin(self, batch: Batch) -> None:
        """A new batch; each of its samples draws the key that decides whether it stays in the reservoirs."""
        self._batch = batch
        self._keys = torch.rand(batch.size, generator=self.generator, dtype=torch.float64)
        self._targets = self.labels.of(batch.content, batch.labels, self.samples, batch.size)
        self._pending.clear()
        self._pooled.clear()

    def receive(self, activation: Activation) -> None:
        """Reduces one activation, inside the hook."""
        row = self.rows.get(activation.key)
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
                # Every layer draws the same positions, so it does not matter which others are studied.
                generator=torch.Generator().manual_seed(self._seed + self.batches),
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
                self.samples,
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
                f"Layer {activation.key[0]} was first reached in batch {self.batches} (counted from 0), after the plan "
                f"of the memory: it is kept {'exactly' if share.rank is None else f'as a sketch of rank {share.rank}'}"
                + (f", {over / 1e6:.0f} MB beyond the budget." if over > 0 else ".")
            ] = None
        return share

    def _present(self, activation: Activation) -> torch.Tensor | None:
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
        shown = [self.samples + i for i in bad.samples[:5]]
        more = f" and {len(bad.samples) - 5} more" if len(bad.samples) > 5 else ""
        return (
            f"Layer {layer!r} put out NaN or infinite values in batch {self.batches}, sample "
            f"{', '.join(map(str, shown))}{more} (counted from 0). Mend the data or the network there, or leave "
            "such samples out with `skip_bad=True` (--skip-bad)."
        )


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
