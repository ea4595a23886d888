"""`Side`: one of two models during a comparison's pass, and the layers of both that can be compared."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Hashable, Iterator
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
    SelectorError,
    capture,
    device_of,
    dtype_of,
    map_tensors,
)
from ketwork.networks.comparison.result import ComparedLayer
from ketwork.networks.moments import UNITS, sample_rows


class MisalignedError(ValueError):
    """`data` and `other_data` are not the same samples."""


@dataclass
class Side:
    """One of the models during the pass. Its rows of the current batch are keyed by (side, path, call)."""

    name: str
    model: nn.Module
    layers: Layers
    forward: Forward | None
    unit: str
    normalize: str
    rows: dict[Hashable, Tensor] = field(default_factory=dict)
    infos: dict[Key, tuple[LayerInfo, int]] = field(default_factory=dict)
    left_out: dict[Key, str] = field(default_factory=dict)
    batches: int = 0
    _samples: int = 0
    _mask: Tensor | None = None

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

        batch = replace(batch, content=map_tensors(batch.content, placed))
        self._mask = batch.mask.to(self.device) if batch.mask is not None else None
        self._samples = done
        self.rows.clear()
        self.live.forward(lambda model: batch.run(model, self.forward), batch.size)
        self.batches += 1

    def receive(self, activation: Activation) -> None:
        """Reduces one activation to a row a sample, inside the hook."""
        key, path = activation.key, activation.info.name
        if key in self.left_out:
            return
        present = self._present(activation)
        rows = sample_rows(activation.values, present, unit_of=self.unit, normalize=self.normalize)
        _, width = self.infos.setdefault(key, (activation.info, rows.shape[1]))
        if width != rows.shape[1]:
            remedy = (
                "With `unit='flat'` every batch must have the same positions: pad all of them to one length."
                if self.unit == UNITS[2]
                else f"Say which axis holds its features with `feature_axis={{{path!r}: ...}}`."
            )
            raise ValueError(
                f"Layer {path!r} of `{self.name}` had {width} features and now has {rows.shape[1]}. {remedy}"
            )
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(self._where(path, activation))
        self.rows[self.name, *key] = rows

    def leave_out(self, key: Key, reason: str) -> None:
        """Takes a layer out of this and later batches."""
        self.left_out[key] = reason
        self.rows.pop((self.name, *key), None)

    def named(self) -> list[tuple[list[str | int], ComparedLayer]]:
        """The layers with the keys of their rows."""
        kept = [key for key in self.infos if key not in self.left_out]
        layers = []
        for key, names in self.live.names(kept).items():
            info, width = self.infos[key]
            place: list[str | int] = [self.name, *key]
            layers.append((place, ComparedLayer.from_info(info.named(*names), width)))
        return layers

    def skipped(self) -> dict[str, str]:
        """Modules that gave no row, each with its reason."""
        visible = {name for _, layer in self.named() for name in (layer.name, *layer.aliases)}
        left_out = {path: reason for (path, _), reason in self.left_out.items()}
        return {path: why for path, why in (self.live.reasons() | left_out).items() if path not in visible}

    def _present(self, activation: Activation) -> Tensor | None:
        if activation.present is not None:
            return activation.present
        mask = self._mask
        if mask is None or not activation.info.positions or mask.shape != activation.values.shape[:2]:
            return None
        return mask

    def _where(self, path: str, activation: Activation) -> str:
        values = activation.values.abs().sum(dim=-1)
        present = self._present(activation)
        if present is not None:
            values = values.masked_fill(~present, 0)
        bad = (~torch.isfinite(values)).any(dim=1).nonzero().squeeze(1).tolist()
        places = ", ".join(str(self._samples + i) for i in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        return (
            f"Layer {path!r} of `{self.name}` put out NaN or infinite values in batch {self.batches}, sample "
            f"{places}{more} (counted from 0). Fix the data or the network there, or remove those samples."
        )


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
