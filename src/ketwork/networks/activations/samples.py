"""What of a batch belongs to its samples: how many there are, and the batch of some of them.

A batch is a tree of tensors, packed sequences and lists. Tensors whose first axis counts the samples carry them, and so
do packed sequences, lists with an entry a sample, and rows in a line with the offsets of each sample's first
(`nn.EmbeddingBag`). Everything else (positions shared by all samples, flags) goes with any samples.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

Path = tuple[Any, ...]
"""Where an entry stands in a batch: keys, indices and names of fields, from the outside in."""

_OFFSETS = "offsets"


def count(content: Any, known: Any = None) -> int | None:
    """How many samples a batch holds, None where nothing tells.

    `known` is something that has an entry a sample, labels or a mask: it decides. Else offsets do, where rows in a line
    come with them, then the number of most first axes that are longer than 1.
    """
    lengths = [length for _, value in _values(content) if (length := _length(value)) is not None]
    if known is not None and (length := _length(known)) is not None:
        return length
    line = next(_lines(content), None)
    if line is not None:
        return len(line[1].starts)
    longer = [length for length in lengths if length != 1] or lengths
    return Counter(longer).most_common(1)[0][0] if longer else None


def count_second(content: Any, first: int | None) -> int | None:
    """How many samples a batch holds if its tensors of three axes or more count them on their second one.

    None where these do not agree, or say what the `first` axes say.
    """
    lengths = {
        value.shape[1] for _, value in _values(content) if isinstance(value, Tensor) and value.ndim >= 3
    }
    return lengths.pop() if len(lengths) == 1 and first not in lengths else None


Second = Literal["never", "else", "first"]
"""Whether tensors of three axes or more may count the samples on their second one.

Never (unless no tensor does on its first), where their first one does not, or even where it could.
"""


def carriers(content: Any, n: int, second: Second = "never") -> dict[Path, int]:
    """The paths of a batch's entries that belong to its n samples, and the axes that count these."""
    first = any(_axis(value, n, "never") == 0 for _, value in _values(content))
    if second == "never" and not first:
        second = "else"
    axes = {path: axis for path, value in _values(content) if (axis := _axis(value, n, second)) is not None}
    for path, flat in _lines(content):
        if len(flat.starts) == n:
            axes |= {(*path, flat.rows): 0, (*path, flat.offsets): 0}
    return axes


def take(content: Any, places: Sequence[int], axes: Mapping[Path, int]) -> Any:
    """The batch of the samples at these places; a place may stand twice.

    `axes` are the entries that belong to samples (some of the `carriers`), each with the axis that counts them.
    """
    return _Taker(list(places), axes).take(content)


def shortened(content: Any, axes: Mapping[Path, int]) -> Any | None:
    """The batch with these entries' last position removed, on the axis after that of the samples.

    None where they do not all have as many positions, two at least.
    """
    tensors = {path: _at(content, path) for path in axes}
    if not all(isinstance(each, Tensor) and each.ndim > axes[path] + 1 for path, each in tensors.items()):
        return None
    lengths = {each.shape[axes[path] + 1] for path, each in tensors.items()}
    if len(lengths) != 1 or (length := lengths.pop()) < 2:
        return None
    return take(content, range(length - 1), {path: axis + 1 for path, axis in axes.items()})


def with_own_caches(tree: Any) -> Any:
    """The batch with copies of the caches of keys and values in it, which a forward pass adds to."""
    if is_cache(tree):
        return copy.deepcopy(tree)
    if isinstance(tree, Mapping) and any(is_cache(value) for value in tree.values()):
        return {key: with_own_caches(value) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(with_own_caches(value) for value in tree)
    return tree


def is_cache(value: Any) -> bool:
    """Whether it is a cache of keys and values, as generation with transformers keeps them."""
    return callable(getattr(value, "batch_select_indices", None))


def _at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = dict(_entries(tree))[key]
    return tree


@dataclasses.dataclass(frozen=True)
class _Ragged:
    """Rows in a line, `rows` of a batch's entries, and where those of each sample begin, `offsets` of them."""

    rows: Any
    offsets: Any
    starts: list[int]
    end: int
    closed: bool  # whether the end of the last sample stands among the offsets


class _Taker:
    def __init__(self, places: list[int], axes: Mapping[Path, int]) -> None:
        self.places, self.axes = places, axes

    def take(self, tree: Any, path: Path = ()) -> Any:
        """The tree with the samples taken of each part that belongs to them."""
        flat = _ragged(tree)
        if flat is not None and (*path, flat.offsets) in self.axes:
            return self._ragged(tree, flat, path)
        if path in self.axes:
            return self._taken(tree, self.axes[path])
        if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
            fields = {key: self.take(value, (*path, key)) for key, value in _entries(tree)}
            return dataclasses.replace(tree, **fields)
        if not _is_tree(tree):
            return tree
        return _rebuilt(tree, {key: self.take(value, (*path, key)) for key, value in _entries(tree)})

    def _taken(self, value: Any, axis: int) -> Any:
        if isinstance(value, PackedSequence):
            sequences = unpack_sequence(value)
            return pack_sequence([sequences[place] for place in self.places], enforce_sorted=False)
        if isinstance(value, Tensor):
            if value.is_nested:
                parts = value.unbind()
                return torch.nested.as_nested_tensor([parts[p] for p in self.places], layout=value.layout)
            return value.index_select(axis, torch.tensor(self.places, dtype=torch.long, device=value.device))
        if isinstance(value, np.ndarray):
            return value[self.places]
        if is_cache(value):
            new = copy.deepcopy(value)
            new.batch_select_indices(torch.tensor(self.places, dtype=torch.long))
            return new
        return type(value)([value[place] for place in self.places])

    def _ragged(self, tree: Any, flat: _Ragged, path: Path) -> Any:
        rows, offsets = tree[flat.rows], tree[flat.offsets]
        ends = [*flat.starts[1:], flat.end]
        parts = [rows[flat.starts[place] : ends[place]] for place in self.places]
        edges = torch.tensor([0, *(len(part) for part in parts)], device=offsets.device).cumsum(0)
        new = {flat.rows: torch.cat(parts), flat.offsets: (edges if flat.closed else edges[:-1]).to(offsets)}
        entries = {
            key: new[key] if key in new else self.take(value, (*path, key)) for key, value in _entries(tree)
        }
        return _rebuilt(tree, entries)


def _is_tree(value: Any) -> bool:
    """Whether a value is a mapping, tuple or list to look into."""
    return isinstance(value, (Mapping, tuple, list)) and not isinstance(value, PackedSequence)


def _entries(tree: Any) -> list[tuple[Any, Any]]:
    if dataclasses.is_dataclass(tree):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return list(tree.items()) if isinstance(tree, Mapping) else list(enumerate(tree))


def _rebuilt(tree: Any, entries: dict[Any, Any]) -> Any:
    # A tokenizer's BatchEncoding is a mapping that cannot be rebuilt from pairs; a dict serves the call.
    if isinstance(tree, Mapping):
        return entries
    return type(tree)(*entries.values()) if hasattr(tree, "_fields") else type(tree)(entries.values())


def _ragged(tree: Any) -> _Ragged | None:
    """Rows in a line beside their offsets: the last integer vector that rises from 0 to at most the batch's length.

    In a mapping these are called `offsets`.
    """
    if not _is_tree(tree):
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


def _lines(tree: Any, path: Path = ()) -> Iterator[tuple[Path, _Ragged]]:
    """All rows in a line of a tree, with the paths of what holds them."""
    if (flat := _ragged(tree)) is not None:
        yield path, flat
    elif _is_tree(tree):
        for key, value in _entries(tree):
            yield from _lines(value, (*path, key))


def _rising(offsets: Tensor, end: int) -> bool:
    integers = offsets.dtype in (torch.int32, torch.int64)
    return (
        integers
        and len(offsets) > 0
        and int(offsets[0]) == 0
        and bool((offsets.diff() >= 0).all())
        and int(offsets[-1]) <= end
    )


def _axis(value: Any, n: int, second: Second) -> int | None:
    """The axis of a value that has an entry for each of n samples, None if it has none."""
    if not isinstance(value, Tensor) or value.is_nested:
        return 0 if _length(value) == n else None
    on_second = second != "never" and value.ndim > 2 and value.shape[1] == n
    if on_second and second == "first":
        return 1
    if value.ndim and value.shape[0] == n:
        return 0
    return 1 if on_second else None


def _plain(value: Any) -> bool:
    """Whether it is a list with one plain entry (a text, a number) a sample."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(entry, (str, bytes, int, float, np.generic)) for entry in value)
    )


def _values(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """What a tree holds (tensors, packed sequences, arrays, plain lists), each with its path."""
    if isinstance(tree, (Tensor, PackedSequence, np.ndarray)) or _plain(tree) or is_cache(tree):
        yield path, tree
    elif _is_tree(tree) or (dataclasses.is_dataclass(tree) and not isinstance(tree, type)):
        for key, value in _entries(tree):
            yield from _values(value, (*path, key))


def _length(value: Any) -> int | None:
    """The number of entries, None of a single number or of what has none."""
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if isinstance(value, Tensor):
        return value.size(0) if value.is_nested else (len(value) if value.ndim else None)
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim else None
    if is_cache(value):
        layers: Any = getattr(getattr(value, "self_attention_cache", value), "layers", ())
        keys = getattr(layers[0], "keys", None) if len(layers) else None
        return len(keys) if isinstance(keys, Tensor) and keys.ndim else None
    return len(value) if hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping)) else None
