"""The samples of a shard of activations: how many there are, and each one's part of every array.

Rows of an array lie one a sample, or in a line, those of a sample together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork.networks.activations.info import Key
from ketwork.networks.activations.masks import IGNORED
from ketwork.networks.activations.shard_files import Stored, as_tensor


@dataclass(frozen=True)
class Samples:
    """The samples of a shard: how many, their ids, and where the rows of each lie in a line.

    `bounds` (n + 1,) are the rows' places, None where no layer has them in a line.
    """

    n: int
    bounds: np.ndarray | None
    ids: np.ndarray | None

    @classmethod
    def from_arrays(cls, shard: str, arrays: Mapping[str, Stored]) -> Samples:
        """Those of a shard's arrays, by `lengths`, by `sample_ids`, or by the first axis of its layers."""
        ids = np.asarray(arrays["sample_ids"].all()) if "sample_ids" in arrays else None
        if ids is not None and ids.ndim != 1:
            raise misfit(f"`sample_ids` must have one axis, but have shape {ids.shape} in {shard}")
        lengths = np.asarray(arrays["lengths"].all()) if "lengths" in arrays else None
        if lengths is not None:
            if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any():
                raise misfit(
                    f"`lengths` must be a whole number from 1 on for each sample, but are not in {shard}"
                )
        elif ids is not None and len(np.unique(ids)) < len(ids):
            first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
            ids, lengths = ids[first], np.diff(np.r_[first, len(ids)])
            names, counts = np.unique(ids, return_counts=True)
            if len(names) < len(ids):
                raise misfit(
                    f"the rows of a sample must lie together, but in {shard} rows of sample "
                    f"{names[counts > 1][0]} stand in several places"
                )
        bounds = None if lengths is None else np.r_[0, np.cumsum(lengths)]
        if lengths is not None:
            n = len(lengths)
        elif ids is not None:
            n = len(ids)
        else:
            n = _common(shard, arrays)
        if ids is not None and len(ids) != n:
            raise misfit(
                f"there must be an id a sample, but {shard} has {len(ids)} `sample_ids` for {n} samples"
            )
        return cls(n, bounds, ids)

    @property
    def may_be_single(self) -> bool:
        """Whether each sample has one row, as `lengths` or ids tell: in other shards a sample may have several."""
        return self.ids is not None if self.bounds is None else self.bounds[-1] == self.n

    def in_line(self, array: Stored) -> bool:
        """Whether an array has a row for each position of each sample, in a line."""
        return len(array) != self.n and self.bounds is not None and len(array) == self.bounds[-1]


def _common(shard: str, arrays: Mapping[str, Stored]) -> int:
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:6])
        raise misfit(
            f"arrays must have an entry a sample, but have so many in {shard}: {listed}. Where rows are positions, "
            "give `lengths` or `sample_ids`"
        )
    return next(iter(counts.values()), 0)


Values = tuple[Any, Tensor | None]
"""Values (n, T, d), and which positions exist where rows lie in a line."""


@dataclass(frozen=True)
class Part:
    """Samples of one shard: each layer's values, and what stands beside them."""

    shard: str
    places: np.ndarray
    layers: dict[Key, Values]
    entries: dict[str, Values]
    mask: Tensor | None


def values_of(array: Stored, samples: Samples, places: np.ndarray, plain: bool = False) -> Values:
    """The entries of some samples of an array; of a layer, unless `plain`, as samples × positions × features."""
    if not samples.in_line(array):
        values = _rows(array, places, places + 1)
        if plain:
            return values, None
        values = as_tensor(values)
        return values.reshape(len(values), -1, values.shape[-1]), None
    assert samples.bounds is not None
    starts, stops = samples.bounds[places], samples.bounds[places + 1]
    lengths = torch.from_numpy(stops - starts)
    rows = as_tensor(_rows(array, starts, stops))
    present = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    values = rows.new_zeros(*present.shape, *rows.shape[1:])
    values[present] = rows
    return values, present


def _rows(array: Stored, starts: np.ndarray, stops: np.ndarray) -> Any:
    """The rows between each start and stop, read in one piece where they follow each other."""
    if (starts[1:] == stops[:-1]).all():
        return array.read(int(starts[0]), int(stops[-1]))
    parts: list[Any] = [array.read(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else torch.cat(parts)


def mask_of(arrays: Mapping[str, Stored], samples: Samples, places: np.ndarray) -> Tensor | None:
    """Which positions of some samples exist, by `mask` or `lengths`; None where all do."""
    if "mask" in arrays:
        return as_tensor(_rows(arrays["mask"], places, places + 1)) != 0
    if samples.bounds is None:
        return None
    padded = [array for array in arrays.values() if len(array.shape) == 3 and not samples.in_line(array)]
    lengths = torch.from_numpy(np.diff(samples.bounds)[places])
    positions = padded[0].shape[1] if padded else int(lengths.max())
    return torch.arange(positions)[None, :] < lengths[:, None]


def padded(parts: Sequence[Tensor], fill: int = 0) -> Tensor:
    """Parts (n, T, …) in one, filled behind those of fewer positions."""
    if len(parts) == 1:
        return parts[0]
    positions = max(part.shape[1] for part in parts)
    joined = parts[0].new_full((sum(map(len, parts)), positions, *parts[0].shape[2:]), fill)
    start = 0
    for part in parts:
        joined[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return joined


def joined(parts: Sequence[Values]) -> tuple[Tensor, Tensor | None]:
    """A layer's values (n, T, d) of several parts, and which positions exist where not all of them do."""
    values = padded([part for part, _ in parts])
    if all(present is None and part.shape[1] == values.shape[1] for part, present in parts):
        return values, None
    present = [
        torch.ones(part.shape[:2], dtype=torch.bool) if known is None else known for part, known in parts
    ]
    return values, padded(present)


def entries_joined(name: str, parts: Sequence[Values]) -> Any:
    """What stands beside the layers: tensors of numbers, with `IGNORED` for labels of no position; or texts."""
    values = [value for value, _ in parts]
    if isinstance(values[0], np.ndarray) and values[0].dtype.kind not in "biufc":
        return np.concatenate(values)
    tensors = [as_tensor(value) for value in values]
    if tensors[0].ndim < 2:
        return torch.cat(tensors)
    fill = 0 if name in ("inputs", "sample_ids") or tensors[0].is_floating_point() else IGNORED
    if fill and (parts[0][1] is not None or len({each.shape[1] for each in tensors}) > 1):
        tensors = [
            each.long() if known is None else each.long().masked_fill(~known, fill)
            for each, (_, known) in zip(tensors, parts, strict=True)
        ]
    return padded(tensors, fill)


def misfit(what: str) -> ValueError:
    """The error of files that are no activations, or not of the same layers and samples."""
    return ValueError(f"Argument `source` must be activations that fit together: {what}.")
