"""What a module returned: finding the activation in a tensor, tuple, dict or dataclass."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The tensor that was taken from an output, where it stood, and which of its positions are real.

    `path` is written as one would index the output: "" for the output itself, "[0]", ".last_hidden_state".
    `present` (samples, positions) is given where the output itself says which positions exist (nested and
    packed tensors); it is None otherwise. `source` is what stood there: the tensor itself, but for those, for sparse
    ones, which are read as dense, and for those of which each process has a part, which are gathered. `complete`
    is given of a part of the features: those from `part[0]` to `part[1]` on its last axis.
    """

    tensor: Tensor
    path: str
    source: Tensor | PackedSequence
    present: Tensor | None = None
    complete: Tensor | None = None
    part: tuple[int, int] = (0, 0)


def activations(output: Any) -> Iterator[Leaf]:
    """The floating-point tensors of an output, in order.

    Tuples, lists, mappings and dataclasses (a `transformers` ModelOutput is a mapping) are searched depth
    first: LSTM's (output, (h, c)) gives `[0]` first, a ModelOutput its first field.
    """
    for path, value in leaves(output):
        if isinstance(value, PackedSequence):
            padded, lengths = pad_packed_sequence(value, batch_first=True)
            yield Leaf(padded, path, value, _within(lengths, padded.shape[1]))
        elif isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            yield _dense(value, path)


def version_of(tensor: Tensor) -> float:
    """How often a tensor was changed in place; NaN, which equals nothing, for one that does not count it."""
    return math.nan if tensor.is_inference() else tensor._version


def described(output: Any) -> str:
    """A sentence that says what an output without activations holds instead."""
    kinds = [
        f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
        for _, value in leaves(output)
        if value is not None
    ]
    return f"its output holds no floating-point tensor (found: {', '.join(kinds) or 'nothing'})"


def map_tensors(tree: Any, function: Any) -> Any:
    """The same tree with `function` applied to each tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, PackedSequence):
        return tree.to(function(tree.data[:0]).device)
    if isinstance(tree, Mapping):
        # A tokenizer's BatchEncoding is a mapping that cannot be rebuilt from pairs; a dict serves the call.
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(value, function) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(map_tensors(value, function) for value in tree)
    return tree


def replaced(tree: Any, leaf: Leaf, tensor: Tensor) -> Any:
    """The same tree with `tensor` wherever the leaf's tensor stood; nothing is changed in place.

    Nested and packed tensors are made of the new one's existing positions.
    """
    if tree is leaf.source:
        return _in_form_of(leaf.source, tensor if leaf.complete is None else _with_part(leaf, tensor))
    if isinstance(tree, (Tensor, PackedSequence)):
        return tree
    if isinstance(tree, Mapping):
        new: Any = copy.copy(tree)  # a ModelOutput stays one: its entries and attributes go together
        for key, value in tree.items():
            if (entry := replaced(value, leaf, tensor)) is not value:
                new[key] = entry
        return new
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
        entries = {name: replaced(value, leaf, tensor) for name, value in fields.items()}
        return dataclasses.replace(tree, **{n: e for n, e in entries.items() if e is not fields[n]})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(replaced(value, leaf, tensor) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(replaced(value, leaf, tensor) for value in tree)
    return tree


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors of a tree, depth first."""
    for _, value in leaves(tree):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, PackedSequence):
            yield pad_packed_sequence(value, batch_first=True)[0]


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All that a tree holds, depth first, each with its path."""
    if isinstance(tree, (Tensor, PackedSequence)) or tree is None:
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]")
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for field in dataclasses.fields(tree):
            yield from leaves(getattr(tree, field.name), f"{path}.{field.name}")
    elif isinstance(tree, Sequence) and not isinstance(tree, (str, bytes)):
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}[{i}]")
    else:
        yield path, tree


def _in_form_of(source: Tensor | PackedSequence, tensor: Tensor) -> Tensor | PackedSequence:
    """A padded batch (samples, positions, features) in the form that it was taken from."""
    if isinstance(source, PackedSequence):
        rows = tensor if source.sorted_indices is None else tensor[source.sorted_indices]
        steps = [rows[:count, t] for t, count in enumerate(source.batch_sizes.tolist())]
        return source._replace(data=torch.cat(steps))
    if source.layout in _SPARSE:
        return tensor.to_sparse(layout=source.layout)
    if source.is_nested:
        parts = [row[: len(part)] for row, part in zip(tensor, source.unbind(), strict=True)]
        return torch.nested.as_nested_tensor(parts, layout=source.layout)
    return tensor


def _with_part(leaf: Leaf, tensor: Tensor) -> Tensor:
    assert leaf.complete is not None
    new = leaf.complete.clone()
    new[..., slice(*leaf.part)] = tensor
    return new


def is_spread(tensor: Tensor) -> bool:
    """Whether processes have parts of a tensor (a DTensor)."""
    return hasattr(tensor, "full_tensor")


def _dense(tensor: Tensor, path: str) -> Leaf:
    if is_spread(tensor):
        return Leaf(tensor.full_tensor(), path, tensor)  # type: ignore[attr-defined]
    if tensor.layout in _SPARSE:
        return Leaf(tensor.to_dense(), path, tensor)
    if not tensor.is_nested:
        return Leaf(tensor, path, tensor)
    lengths = torch.tensor([part.shape[0] for part in tensor.unbind()], device=tensor.device)
    padded = torch.nested.to_padded_tensor(tensor, 0.0)
    return Leaf(padded, path, tensor, _within(lengths, padded.shape[1]))


def _within(lengths: Tensor, positions: int) -> Tensor:
    return torch.arange(positions, device=lengths.device)[None, :] < lengths[:, None]
