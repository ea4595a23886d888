"""`Side`: one of two models during a comparison's pass, and the layers of both that can be compared."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ketwork.networks.activations import (
    Activation,
    Batch,
    Capture,
    Forward,
    Key,
    LayerInfo,
    Layers,
    Reading,
    RefusedError,
    SelectorError,
    capture,
    device_of,
    dtype_of,
    map_tensors,
)
from ketwork.networks.comparison.result import ComparedLayer
from ketwork.networks.moments import UNITS, Positions, sample_owners, sample_rows
from ketwork.networks.runtime import Bad, BadValues


class MisalignedError(ValueError):
    """`data` and `other_data` are not the same samples."""


@dataclass
class Side:
    """One of the models during the pass. Its rows of the current batch are keyed by (side, path, call).

    `owners` tells which sample each row is of, of the layers with so many rows.
    """

    name: str
    model: nn.Module
    layers: Layers
    forward: Forward | None
    unit: str
    normalize: str
    rows: dict[Hashable, Tensor] = field(default_factory=dict)
    infos: dict[Key, tuple[LayerInfo, int]] = field(default_factory=dict)
    missing_pairs: dict[Key, str] = field(default_factory=dict)
    batches: int = 0
    owners: dict[int, Tensor] = field(default_factory=dict)
    bad: BadValues = field(default_factory=BadValues)
    inside: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    _samples: int = 0

    def __post_init__(self) -> None:
        self.dtype, self.device = dtype_of(self.model), device_of(self.model)

    def enter(self, stack: contextlib.ExitStack, reading: Reading) -> None:
        """Puts the hooks on until the stack unwinds."""
        live = capture(
            self.model,
            self.layers,
            receive=self.receive,
            calls=reading.calls,
            feature_axis=reading.feature_axis,
            axes=reading.layers,
        )
        try:
            self.live: Capture = stack.enter_context(live)
        except SelectorError as error:
            raise SelectorError(f"In `{self.name}`: {error}") from error

    def run(self, batch: Batch, done: int, dtype_of_data: torch.dtype) -> None:
        """Runs one batch through this model; `rows` then has what each layer made of it."""
        cast = self.dtype if self.dtype != dtype_of_data else None

        def placed(tensor: Tensor) -> Tensor:
            fits = cast is not None and tensor.dtype == dtype_of_data
            return tensor.to(self.device, cast if fits else None)

        masks = tuple(replace(mask, present=mask.present.to(self.device)) for mask in batch.masks)
        batch = replace(batch, content=map_tensors(batch.content, placed), masks=masks)
        self._samples = done
        self.rows.clear()
        self.owners.clear()
        self.bad.clear()
        with self.inside():
            self.live.forward(
                lambda model: batch.run(model, self.forward),
                batch.size,
                batch.trial(self.forward),
                batch.masks,
                self.batches,
            )
        for key in self.live.refused & self.infos.keys():
            self.leave_out(key, self.live.skipped[key[0]])
        self._settle(batch)
        self.batches += 1

    def receive(self, activation: Activation) -> None:
        """Reduces one activation to a row a sample, inside the hook."""
        key, path = activation.key, activation.info.name
        if key in self.missing_pairs:
            return
        positions = Positions.of(activation.values, activation.present)
        rows = sample_rows(activation.values, positions, unit_of=self.unit, normalize=self.normalize)
        known = self.infos.get(key)
        if known is not None and known[1] != rows.shape[1]:
            if self.unit == UNITS[2]:
                raise ValueError(
                    f"Layer {path!r} of `{self.name}` had {known[1]} features and now has {rows.shape[1]}. With "
                    "`unit='flat'` every batch must have the same positions: pad all of them to one length."
                )
            raise RefusedError(
                f"it had {known[1]} features and now has {rows.shape[1]}. If another axis holds them, say so with "
                f"`reading=kw.Reading(feature_axis={{{path!r}: …}})`"
            )
        self.bad.order.append(key)
        finite = torch.isfinite(rows).all(dim=1)
        if not bool(finite.all()):
            self.bad.bad[key] = Bad.from_activation(activation, _bad_samples(activation))
            return
        self.infos.setdefault(key, (activation.info, rows.shape[1]))
        self.rows[self.name, *key] = rows
        if len(rows) not in self.owners:
            self.owners[len(rows)] = sample_owners(positions, unit_of=self.unit).cpu()

    def leave_out(self, key: Key, reason: str) -> None:
        """Takes a layer out of this and later batches."""
        self.missing_pairs[key] = reason
        self.rows.pop((self.name, *key), None)

    def named(self) -> list[tuple[list[str | int], ComparedLayer]]:
        """The layers with the keys of their rows, of those too that were skipped later."""
        layers = []
        for key, names in self.live.names(self.infos).items():
            info, width = self.infos[key]
            place: list[str | int] = [self.name, *key]
            layers.append((place, ComparedLayer.from_info(info.named(*names), width)))
        return layers

    def skipped(self) -> dict[str, str]:
        """Modules that gave no row, each with its reason."""
        visible = {
            name
            for (_, *key), layer in self.named()
            if tuple(key) not in self.missing_pairs
            for name in (layer.name, *layer.aliases)
        }
        missing_pairs = {path: reason for (path, _), reason in self.missing_pairs.items()}
        return {
            path: why for path, why in (self.live.reasons() | missing_pairs).items() if path not in visible
        }

    def _settle(self, batch: Batch) -> None:
        """Skips layers whose values are not finite, where that is their own; else an error."""
        if not self.bad.bad:
            return
        first = min(self.bad.bad, key=self.bad.order.index)
        words = {key: self.bad.words(key, self.batches, self._samples) for key in self.bad.bad}
        if not self.bad.of_layers(batch, self.infos.keys()):
            raise ValueError(
                f"Layer {first[0]!r} of `{self.name}` put out {words[first]}. Fix the data or the network there, or "
                "leave those samples out."
            )
        for key, where in words.items():
            self.live.refuse(key, f"it put out {where}")
            self.leave_out(key, f"it put out {where}")


def _bad_samples(activation: Activation) -> list[int]:
    """The samples of the batch with NaN or infinite values at positions that exist."""
    values = activation.values.abs().sum(dim=-1)
    if activation.present is not None:
        values = values.masked_fill(~activation.present, 0)
    return (~torch.isfinite(values)).any(dim=1).nonzero().squeeze(1).tolist()


def side_by_side(sources: list[Iterator[Batch]]) -> Iterator[tuple[Batch, ...]]:
    """The batches of all sources, one of each at a time.

    Raises:
        MisalignedError: they do not have the same samples.
    """
    for number, aligned in enumerate(itertools.zip_longest(*sources)):
        sizes = [0 if batch is None else batch.size for batch in aligned]
        if len(set(sizes)) > 1:
            raise MisalignedError(
                "Argument `other_data` must hold the same samples as `data`, in batches of the same sizes, but "
                f"batch {number} has {sizes[0]} of `data` and {sizes[1]} of `other_data`."
            )
        yield aligned


def choose(sides: list[Side]) -> None:
    """Leaves out layers that have other positions than most have, and sees that some are left."""
    for side in sides:
        if not side.rows:
            reasons = "; ".join(f"{path}: {why}" for path, why in list(side.live.skipped.items())[:5])
            raise ValueError(f"No layer of `{side.name}` gave an activation to compare ({reasons}).")
    counts = Counter(len(rows) for side in sides for rows in side.rows.values())
    most = max(counts, key=lambda count: (counts[count], count))
    for side in sides:
        for key in side.infos:
            rows = side.rows[side.name, *key]
            if len(rows) != most:
                side.leave_out(
                    key, f"it has {len(rows)} positions in the first batch, where most have {most}"
                )
        if not side.rows:
            raise ValueError(
                f"Argument `unit` is 'position', which compares layers with the same positions, but no layer of "
                f"`{side.name}` has the {most} that most have. Leave it out to compare samples, or choose layers."
            )
