"""`StoredActivations`: activations in files, checked before they are read, and handed over batch by batch.

The layout of a shard, of n samples (`shard_files` has the formats):

- a layer: (n, d), (n, T, d), or more axes of positions; or rows in a line (rows, d), those of a sample together
- `lengths` (n,): how many positions each sample has, in a line or from the first on
- `sample_ids` (n,), or one a row in a line: each sample's rows bear its id
- `mask` (n, T): which positions exist
- `labels` (n,), (n, T), or one a row in a line; or another array of one axis, which the study names
- `inputs`: what the network was given, which the seed's draws follow
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np

from ketwork.networks.activations.axes import KnownAxes
from ketwork.networks.activations.batching import Batch, EmptyDataError
from ketwork.networks.activations.captures import RefusedError, Seen
from ketwork.networks.activations.info import Activation, Key, LayerInfo
from ketwork.networks.activations.layout import Layout
from ketwork.networks.activations.masks import GIVEN, PositionMask
from ketwork.networks.activations.naming import SelectorError, by_number
from ketwork.networks.activations.shard_files import RESERVED, Shard, Stored
from ketwork.networks.activations.shard_samples import (
    Part,
    Samples,
    entries_joined,
    joined,
    mask_of,
    misfit,
    padded,
    values_of,
)

KIND = "stored"
"""The kind of a layer that no module put out."""

_CALL = re.compile(r"(.*) \(call (\d+)\)")


@dataclass(frozen=True)
class StoredBatch:
    """A batch, its layers' activations, and where its samples come from: the shard, and their places in it."""

    batch: Batch
    activations: list[Activation]
    origins: list[tuple[str, np.ndarray]]

    def origin(self, sample: int) -> str:
        """Where a sample of the batch stands, in words."""
        for shard, places in self.origins:
            if sample < len(places):
                return f"sample {places[sample]} (counted from 0) of {shard}"
            sample -= len(places)
        raise IndexError(sample)


@dataclass
class StoredActivations:
    """The activations of some shards, a `Source` of a pass.

    `infos` are the layers, `entries` the arrays beside them, the same in all shards; `counts` the samples of each.
    """

    shards: Sequence[Shard]
    infos: list[LayerInfo]
    widths: list[int]
    entries: frozenset[str]
    counts: list[int]
    ids: np.ndarray | None
    label: str | None = None
    receive: Callable[[Activation], None] = lambda activation: None
    refused: set[Key] = field(default_factory=set)
    notes: tuple[str, ...] = ()
    _skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_shards(
        cls, shards: Sequence[Shard], layers: str | Sequence[str] | None = None, label: str | None = None
    ) -> StoredActivations:
        """The shards' activations, after a look at each one's shapes and ids; `label` names one more array beside.

        Raises:
            ValueError: shards that do not fit together, or no layer; it says what and where.
            SelectorError: `layers` names none.
        """
        first: dict[str, Form] = {}
        several: dict[str, bool] = {}
        beside: frozenset[str] = frozenset()
        counts: list[int] = []
        ids = []
        for shard in shards:
            with shard.open() as arrays:
                samples = Samples.from_arrays(shard.name, arrays)
                entries = frozenset(name for name, array in arrays.items() if _stands_beside(name, array))
                forms = {
                    name: _form(shard.name, name, array, samples)
                    for name, array in arrays.items()
                    if name not in entries
                }
                for name in entries:
                    _check_entry(shard.name, name, arrays[name], samples)
            if not counts:
                first, beside = forms, entries
            _check_alike(shards[0].name, shard.name, first, forms, beside, entries)
            several |= {name: True for name, form in forms.items() if form.positions}
            counts.append(samples.n)
            if samples.ids is not None:
                ids.append(samples.ids)
        if not first:
            raise misfit("there must be a layer, but all arrays are of what stands beside them")
        if sum(counts) == 0:
            raise EmptyDataError("Argument `source` must hold at least one sample, but is empty.")
        known = np.concatenate(ids) if ids else None
        _check_ids(known, counts, shards)
        names = list(first) if shards[0].ordered else sorted(first, key=by_number)
        chosen = _chosen(names, layers)
        infos = [_info(name, name in several) for name in chosen]
        return cls(shards, infos, [first[name].d for name in chosen], beside, counts, known, label)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(self.counts)

    def entry(self, name: str) -> np.ndarray:
        """An array beside the layers, of all samples."""
        parts = []
        for shard in self.shards:
            with shard.open() as arrays:
                parts.append(np.asarray(arrays[name].all()))
        return np.concatenate(parts)

    def batches(self, batch_size: int, places: np.ndarray | None = None) -> Iterator[StoredBatch]:
        """All samples, or those at some places, which ascend, in batches that may reach over shards."""
        waiting: list[Part] = []
        start = 0
        for shard, count in zip(self.shards, self.counts, strict=True):
            here = (
                np.arange(count)
                if places is None
                else places[(places >= start) & (places < start + count)] - start
            )
            start += count
            with shard.open() as arrays:
                samples = Samples.from_arrays(shard.name, arrays)
                while len(here):
                    free = batch_size - sum(len(part.places) for part in waiting)
                    waiting.append(self._part(shard.name, arrays, samples, here[:free]))
                    here = here[free:]
                    if sum(len(part.places) for part in waiting) == batch_size:
                        yield self._batch(waiting)
                        waiting = []
        if waiting:
            yield self._batch(waiting)

    def hand_over(self, activations: Sequence[Activation]) -> None:
        """Gives a batch's activations to what receives them."""
        for activation in activations:
            if activation.key in self.refused:
                continue
            try:
                self.receive(activation)
            except RefusedError as error:
                self.refuse(activation.key, str(error))

    @contextlib.contextmanager
    def receiving(self, receive: Callable[[Activation], None]) -> Iterator[None]:
        """A block inside which `receive` gets the activations."""
        before, self.receive = self.receive, receive
        try:
            yield
        finally:
            self.receive = before

    def refuse(self, key: Key, reason: str) -> None:
        """Lets a layer have no row, for a reason."""
        self.refused.add(key)
        self._skipped.setdefault(key[0], reason)

    def names(self, rows: Collection[Key]) -> dict[Key, tuple[Key, tuple[str, ...]]]:
        """Rows are called as in the files."""
        return {key: (key, ()) for key in rows}

    def reasons(self) -> dict[str, str]:
        """The layers without a row so far, each with its reason."""
        return dict(self._skipped)

    def seen(self) -> Seen:
        """What the batches so far have shown, for a checkpoint."""
        return Seen(
            [info.name for info in self.infos], [], self.reasons(), sorted(self.refused), [], [], KnownAxes()
        )

    def restore(self, seen: Seen) -> None:
        """Takes over what other batches have shown."""
        self.refused, self._skipped = set(seen.refused), dict(seen.skipped)

    def _part(self, shard: str, arrays: Mapping[str, Stored], samples: Samples, places: np.ndarray) -> Part:
        mask = mask_of(arrays, samples, places)
        layers = {info.key: values_of(arrays[info.label], samples, places) for info in self.infos}
        entries = {
            name: values_of(arrays[name], samples, places, plain=True)
            for name in self.entries & {"inputs", "labels", self.label}
        }
        return Part(shard, places, layers, entries, mask)

    def _batch(self, parts: list[Part]) -> StoredBatch:
        """A batch of the samples of some parts."""
        activations = []
        masks = [part.mask for part in parts if part.mask is not None]
        mask = padded(masks) if masks else None
        for info in self.infos:
            values, known = joined([part.layers[info.key] for part in parts])
            unfit = None
            if mask is not None and info.positions:
                if mask.shape == values.shape[:2]:
                    known = mask if known is None else known & mask
                elif known is None:
                    unfit = mask
            activations.append(Activation(info, values, known, unfit))
        names = [name for name in ("inputs", *parts[0].entries) if name in parts[0].entries]
        content: dict[str, Any] = {}
        for name in dict.fromkeys(names):
            content[name] = entries_joined(name, [part.entries[name] for part in parts])
        content |= {each.info.label: each.values for each in activations}
        size = sum(len(part.places) for part in parts)
        present = (
            mask
            if mask is not None
            else next((a.present for a in activations if a.present is not None), None)
        )
        of_batch = () if present is None else (PositionMask(GIVEN, present),)
        batch = Batch(content, content.get("labels"), of_batch, size)
        return StoredBatch(batch, activations, [(part.shard, part.places) for part in parts])


@dataclass(frozen=True)
class Form:
    """A layer in one shard: its features, whether they are complex, and whether samples have several positions.

    `positions` is None where each sample of the shard has one row, which may be its only position.
    """

    d: int
    complex: bool
    positions: bool | None


def _stands_beside(name: str, array: Stored) -> bool:
    """Whether an array is no layer: by its name, or since it has one number or text a sample."""
    return name in RESERVED or len(array.shape) < 2


def _form(shard: str, name: str, array: Stored, samples: Samples) -> Form:
    if not array.numeric or len(array.shape) < 2 or 0 in array.shape[1:]:
        raise misfit(
            f"layer {name!r} must be numbers (samples, …, features), but has shape {array.shape} in {shard}"
        )
    if len(array) == samples.n:
        single = None if samples.may_be_single else False
        return Form(array.shape[-1], array.complex, True if len(array.shape) > 2 else single)
    if samples.in_line(array) and len(array.shape) == 2:
        return Form(array.shape[-1], array.complex, True)
    rows = "" if samples.bounds is None else f", or {samples.bounds[-1]} in a line"
    raise misfit(f"layer {name!r} must have {samples.n} samples{rows}, but has {len(array)} rows in {shard}")


def _check_entry(shard: str, name: str, array: Stored, samples: Samples) -> None:
    if len(array) != samples.n and not samples.in_line(array):
        raise misfit(
            f"`{name}` must have an entry for each of {samples.n} samples, but has {len(array)} in {shard}"
        )
    if samples.in_line(array) and not array.numeric and name != "sample_ids":
        raise misfit(f"`{name}` of rows in a line must be numbers, but are texts in {shard}")
    if name == "mask" and len(array.shape) != 2:
        raise misfit(f"`mask` must have shape (samples, positions), but has {array.shape} in {shard}")


def _check_alike(
    first_name: str,
    name: str,
    first: Mapping[str, Form],
    forms: Mapping[str, Form],
    beside: frozenset[str],
    entries: frozenset[str],
) -> None:
    """All shards have the same layers, of the same features, and the same beside them."""
    for one, other, without in ((first, forms, name), (forms, first, first_name)):
        missing = [layer for layer in one if layer not in other]
        if missing:
            raise misfit(f"each shard must have every layer, but {without} has no {missing[0]!r}")
    for layer, form in forms.items():
        before = first[layer]
        if before.d != form.d:
            raise misfit(
                f"layer {layer!r} must be as wide in each shard, but has {before.d} features in {first_name} "
                f"and {form.d} in {name}"
            )
        if before.complex != form.complex or {before.positions, form.positions} == {True, False}:
            raise misfit(f"layer {layer!r} must be of one form, but is not in {first_name} and {name}")
    different = sorted(beside ^ entries)
    if different:
        there, not_there = (first_name, name) if different[0] in beside else (name, first_name)
        raise misfit(
            f"each shard must have the same beside its layers, but {there} has `{different[0]}` and "
            f"{not_there} has none"
        )


def _check_ids(ids: np.ndarray | None, counts: Sequence[int], shards: Sequence[Shard]) -> None:
    """No sample is there twice."""
    if ids is None:
        return
    order = ids.argsort(kind="stable")
    twice = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(twice):
        places = order[twice[0] : twice[0] + 2]
        homes = [
            shards[int(np.searchsorted(np.cumsum(counts), place, side="right"))].name for place in places
        ]
        raise misfit(
            f"each sample must be there once, but {ids[places[0]]!s} is in {homes[0]} and again in {homes[1]}"
        )


def _chosen(names: list[str], layers: str | Sequence[str] | None) -> list[str]:
    """The layers that names and globs choose, in their order; None chooses all."""
    if layers is None:
        return names
    chosen: dict[str, None] = {}
    for pattern in [layers] if isinstance(layers, str) else layers:
        matching = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        matching = [pattern] if pattern in names else matching
        if not matching:
            near = ", ".join(get_close_matches(pattern, names, 3, 0.3) or names[:5])
            raise SelectorError(
                f"Argument `layers` must name layers, but {pattern!r} matches none. There are {near}."
            )
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def _info(name: str, positions: bool) -> LayerInfo:
    call = _CALL.fullmatch(name)
    key = (call[1], int(call[2]) - 1) if call else (name, 0)
    ndim = 3 if positions else 2
    return LayerInfo(
        *key, KIND, "", Layout(0, ndim - 1, ndim, samples_by="given", features_by="given"), positions
    )
