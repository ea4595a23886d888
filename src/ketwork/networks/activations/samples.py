"""What of a batch belongs to its samples: how many there are, and the batch of some of them.

A batch is a tree of tensors, packed sequences and lists. Tensors whose first axis counts the samples carry them, and so
do packed sequences, lists with an entry a sample, and rows in a line with the offsets of each sample's first
(`nn.EmbeddingBag`). Everything else (positions shared by all samples, flags) goes with any samples.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

_OFFSETS = "offsets"


def count(content: Any, known: Any = None) -> int | None:
    """How many samples a batch holds, None where nothing tells.

    `known` is something that has an entry a sample, labels or a mask: it decides. Else offsets do, where rows in a line
    come with them, then the number of most first axes that are longer than 1.
    """
    lengths = list(_lengths(content))
    if known is not None and (length := _length(known)) is not None:
        return length
    flat = next(_lines(content), None)
    if flat is not None:
        return len(flat.starts)
    longer = [length for length in lengths if length != 1] or lengths
    return Counter(longer).most_common(1)[0][0] if longer else None


def take(content: Any, places: Sequence[int], n: int, only: Collection[int] | None = None) -> Any:
    """The batch of the samples at these places of a batch of n; a place may stand twice.

    `only` limits it to those of its entries, by `id`, that are in there.
    """
    return _Taker(list(places), n, _axis(content, n), only).take(content)


def carriers(content: Any, n: int) -> list[Any]:
    """The parts of a batch that belong to its n samples."""
    axis = _axis(content, n)
    lines = [flat for flat in _lines(content) if len(flat.starts) == n]
    return [value for value in _values(content) if _carries(value, n, axis)] or list(lines)


@dataclasses.dataclass(frozen=True)
class _Ragged:
    """Rows in a line, `rows` of a batch's entries, and where those of each sample begin, `offsets` of them."""

    rows: Any
    offsets: Any
    starts: list[int]
    end: int
    closed: bool  # whether the end of the last sample stands among the offsets


class _Taker:
    def __init__(self, places: list[int], n: int, axis: int, only: Collection[int] | None) -> None:
        self.places, self.n, self.axis, self.only = places, n, axis, only

    def take(self, tree: Any) -> Any:
        """The tree with the samples taken of each part that carries them."""
        flat = _ragged(tree)
        if flat is not None and len(flat.starts) == self.n:
            return self._ragged(tree, flat)
        if _carries(tree, self.n, self.axis):
            return self._taken(tree) if self.only is None or id(tree) in self.only else tree
        if isinstance(tree, Mapping):
            return {key: self.take(value) for key, value in tree.items()}
        if isinstance(tree, tuple) and hasattr(tree, "_fields") and not isinstance(tree, PackedSequence):
            return type(tree)(*(self.take(value) for value in tree))
        if isinstance(tree, (tuple, list)):
            return type(tree)(self.take(value) for value in tree)
        if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
            fields = {each.name: self.take(getattr(tree, each.name)) for each in dataclasses.fields(tree)}
            return dataclasses.replace(tree, **fields)
        return tree

    def _taken(self, value: Any) -> Any:
        if isinstance(value, PackedSequence):
            sequences = unpack_sequence(value)
            return pack_sequence([sequences[place] for place in self.places], enforce_sorted=False)
        if isinstance(value, Tensor):
            if value.is_nested:
                parts = value.unbind()
                return torch.nested.as_nested_tensor([parts[p] for p in self.places], layout=value.layout)
            index = torch.tensor(self.places, dtype=torch.long, device=value.device)
            return value.index_select(self.axis, index)
        if isinstance(value, np.ndarray):
            return value[self.places]
        return type(value)([value[place] for place in self.places])

    def _ragged(self, tree: Any, flat: _Ragged) -> Any:
        rows, offsets = tree[flat.rows], tree[flat.offsets]
        ends = [*flat.starts[1:], flat.end]
        parts = [rows[flat.starts[place] : ends[place]] for place in self.places]
        edges = torch.tensor([0, *(len(part) for part in parts)], device=offsets.device).cumsum(0)
        new = {flat.rows: torch.cat(parts), flat.offsets: (edges if flat.closed else edges[:-1]).to(offsets)}
        entries = {key: new[key] if key in new else self.take(value) for key, value in _entries(tree)}
        return entries if isinstance(tree, Mapping) else type(tree)(entries.values())


def _entries(tree: Any) -> list[tuple[Any, Any]]:
    return list(tree.items()) if isinstance(tree, Mapping) else list(enumerate(tree))


def _ragged(tree: Any) -> _Ragged | None:
    """Rows in a line beside their offsets: the last of a batch's integer vectors that rise from 0 to at most its length.

    In a mapping these are called `offsets`.
    """
    if not isinstance(tree, (Mapping, tuple, list)) or isinstance(tree, PackedSequence):
        return None
    vectors = {key: value for key, value in _entries(tree) if isinstance(value, Tensor) and value.ndim == 1}
    keys = list(vectors)
    for j in reversed(range(len(keys))):
        offsets = vectors[keys[j]]
        if isinstance(tree, Mapping) and keys[j] != _OFFSETS:
            continue
        others = [key for key in keys if key != keys[j]] if isinstance(tree, Mapping) else keys[:j]
        for key in others:
            end = len(vectors[key])
            if len(offsets) < end and _rising(offsets, end):
                starts = offsets.tolist()
                closed = len(starts) > 1 and starts[-1] == end
                return _Ragged(key, keys[j], starts[:-1] if closed else starts, end, closed)
    return None


def _lines(tree: Any) -> Iterator[_Ragged]:
    """All rows in a line of a tree."""
    if (flat := _ragged(tree)) is not None:
        yield flat
    elif isinstance(tree, (Mapping, tuple, list)) and not isinstance(tree, PackedSequence):
        for _, value in _entries(tree):
            yield from _lines(value)


def _rising(offsets: Tensor, end: int) -> bool:
    integers = offsets.dtype in (torch.int32, torch.int64)
    return integers and len(offsets) > 0 and int(offsets[0]) == 0 and bool((offsets.diff() >= 0).all()) and int(offsets[-1]) <= end


def _axis(content: Any, n: int) -> int:
    """The axis of tensors that counts the samples: the first, or the second where no tensor has n on the first."""
    shapes = [value.shape for value in _values(content) if isinstance(value, Tensor) and not value.is_nested]
    first = any(len(shape) and shape[0] == n for shape in shapes)
    second = any(len(shape) > 2 and shape[1] == n for shape in shapes)
    return 1 if second and not first else 0


def _carries(value: Any, n: int, axis: int) -> bool:
    """Whether a value has an entry for each of n samples, along the axis if it is a tensor."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0]) == n
    if isinstance(value, Tensor):
        if value.is_nested:
            return value.size(0) == n
        return value.ndim > axis and value.shape[axis] == n
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == n
    return _plain(value) and len(value) == n


def _plain(value: Any) -> bool:
    """Whether it is a list with one plain entry (a text, a number) a sample."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(entry, (str, bytes, int, float, np.generic)) for entry in value)
    )


def _values(tree: Any) -> Iterator[Any]:
    """What a tree holds: tensors, packed sequences, arrays, plain lists."""
    if isinstance(tree, (Tensor, PackedSequence, np.ndarray)) or _plain(tree):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _values(value)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from _values(value)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from _values(getattr(tree, field.name))


def _lengths(tree: Any) -> Iterator[int]:
    for value in _values(tree):
        if (length := _length(value)) is not None:
            yield length


def _length(value: Any) -> int | None:
    """The number of entries, None of a single number or of what has none."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if isinstance(value, Tensor):
        return value.size(0) if value.is_nested else (len(value) if value.ndim else None)
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim else None
    return len(value) if hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping)) else None
