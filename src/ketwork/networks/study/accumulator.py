"""`StudyAccumulator`: all that a pass gathered of a network, a monoid from which a study is made.

Parts of data add up here, whether they come from batches, studies, files or other processes.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Self

from ketwork.networks.activations import NEVER, Key, Labels
from ketwork.networks.moments import LayerAccumulator, Normalize, PairMoments
from ketwork.networks.runtime import Plan
from ketwork.records import Count, Malformed

_PARTLY_LABELLED = "Only a part of the data has labels: no layer's labels are decoded."
_PARTLY_COMPARED = (
    "Only a part of the data kept what comparing layers takes, so that they are not compared. Study each part with "
    "`compare=True`."
)
SAME_KEYS = (
    "Two parts drew the same random keys, since their data begin alike: the samples kept stand at the same places of "
    "both. Study one of them with another `seed` (--seed) for independent ones."
)


@dataclass
class StudyAccumulator:
    """What one or more passes gathered: an accumulator for each layer, and what they have in common.

    `samples` and `batches` count what entered, `position` how many samples of the data have gone by (more where other
    processes take the rest). `skipped` has a reason for each module without a row, `refused` the rows whose output
    could not be read in some batch. `streams` are the seeds of the parts' random keys.
    """

    normalize: Normalize
    layers: list[LayerAccumulator] = field(default_factory=list)
    labels: Labels = field(default_factory=Labels)
    pairs: PairMoments | None = None
    samples: Count = 0
    batches: Count = 0
    position: Count = 0
    plan: Plan | None = None
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: list[Key] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)

    @property
    def by_key(self) -> dict[Key, LayerAccumulator]:
        """The layers' accumulators by name and call."""
        return {layer.info.key: layer for layer in self.layers}

    @property
    def rows(self) -> list[LayerAccumulator]:
        """The layers that could be read in every batch."""
        refused = set(self.refused)
        return [layer for layer in self.layers if layer.info.key not in refused]

    def check(self) -> None:
        """Rows have keys of their own, and labels and pairs are of these rows."""
        known = self.by_key
        if len(known) < len(self.layers):
            raise Malformed("the rows of a study must have keys of their own")
        for layer in self.layers if self.labels.task != "values" else ():
            if layer.labelled is not None and layer.labelled.classes > max(1, len(self.labels.names)):
                raise Malformed(
                    f"a study of {len(self.labels.names)} labels has vectors of {layer.labelled.classes}"
                )
        if self.pairs is None:
            return
        for key, width in zip(self.pairs.keys, self.pairs.widths, strict=True):
            layer = known.get(key)  # type: ignore[call-overload]
            if layer is None or width != layer.d * (2 if layer.moment.first.is_complex() else 1):
                raise Malformed(f"pairs of {width} features are of no layer: {key!r}")

    def copy(self) -> Self:
        """The same, sharing nothing that adding changes."""
        return copy.deepcopy(self)

    def note(self, message: str) -> None:
        """Notes something that a reader of the study should know, once."""
        if message not in self.notes:
            self.notes.append(message)

    def add(self, other: Self, start: int | None = None) -> None:
        """Adds what another gathered; its samples come after these, or at `start` and the places where it has them.

        Layers are found by name and call. The other is not changed, but shares tensors afterwards.

        Raises:
            ValueError: the two are not of the same layers, or labels of another kind; it says what differs.
        """
        if other.batches and self.batches:
            differing = [*self._unknown(other), *other._unknown(self)]
            if differing:
                raise ValueError(f"The parts have different layers: {'; '.join(differing[:6])}.")
        refused = {*self.refused, *other.refused, *self._unreadable(other), *other._unreadable(self)}
        start = self.position if start is None else start
        if other.batches:
            self._add_layers(other, start)
            self._add_pairs(other)
            self.samples += other.samples
            self.batches += other.batches
            self.position = max(self.position, start + other.position)
            self.plan = self.plan or other.plan
            for note in other.notes:
                self.note(note)
        for path, reason in other.skipped.items():
            if self.skipped.get(path, NEVER) == NEVER:
                self.skipped[path] = reason
        self.refused = sorted(refused)
        self.streams = list(dict.fromkeys(self.streams + other.streams))

    def _add_layers(self, other: Self, start: int) -> None:
        if self.batches and (self.labels.task is None) != (other.labels.task is None):
            self.note(_PARTLY_LABELLED)
        codes = self.labels.joined(other.labels)
        known = self.by_key
        for part in other.layers:
            labelled = None if part.labelled is None else part.labelled.moved(codes, start)
            mine = known.get(part.info.key)
            if mine is None:
                self.layers.append(replace(part.copy(), labelled=labelled))
                continue
            mine += replace(
                part,
                labelled=labelled,
                reservoir=copy.copy(part.reservoir),
                heaviest=copy.copy(part.heaviest),
            )
            aliases = tuple(dict.fromkeys((*mine.info.aliases, *part.info.aliases)))
            mine.info = replace(mine.info, aliases=aliases)

    def _add_pairs(self, other: Self) -> None:
        if self.pairs is not None and other.pairs is not None:
            self.pairs += other.pairs
        elif self.pairs is not None or other.pairs is not None:
            self.pairs = None
            self.note(_PARTLY_COMPARED)

    def _names(self) -> Collection[str]:
        names = {name for layer in self.layers for name in (layer.info.name, *layer.info.aliases)}
        return names | self.skipped.keys()

    def _unknown(self, other: Self) -> list[str]:
        """Layers of the other that this network does not have."""
        known = self._names()
        names = dict.fromkeys(layer.info.name for layer in other.layers if layer.info.name not in known)
        return [f"{name!r} is in one part only" for name in names]

    def _unreadable(self, other: Self) -> set[Key]:
        """Rows of the other that this could not read in its batches."""
        mine = {layer.info.name for layer in self.layers}
        bad = {path for path, reason in self.skipped.items() if reason != NEVER and path not in mine}
        return {layer.info.key for layer in other.layers if layer.info.name in bad}
