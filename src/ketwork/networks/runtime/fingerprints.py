"""What a network and a batch are known by again: sums over the bits of their numbers, the same on every device.

They tell other weights and other data, shuffled ones too; they are no proof against one who means to deceive. Within a
sample the order of its numbers does not count, eight bytes at a time.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ketwork.networks.activations import leaves, numbers

_WORD = 8  # bytes that are summed as one integer, modulo 2⁶⁴


def of_network(model: nn.Module) -> dict[str, str]:
    """The network's class, the names and shapes of its parameters and buffers, and their numbers.

    Cost: all of them are read once.
    """
    shapes = []
    weights = 0
    for name, tensor in numbers(model):
        shapes.append((name, str(tensor.dtype), tuple(tensor.shape)))
        weights = _added(weights, tensor.detach())
    return {
        "class": type(model).__name__,
        "shapes": f"{zlib.crc32(repr(shapes).encode()):08x}",
        "weights": f"{weights:08x}",
    }


def of_batch(parts: tuple[Any, ...], before: int = 0) -> int:
    """The fingerprint of the batches up to this one, of which it is `before` without it.

    `parts` are trees of tensors, arrays, numbers and texts. Cost: the tensors are read once.

    >>> x = torch.arange(6.0).reshape(2, 3)
    >>> of_batch((x,)) == of_batch((x.clone(),)), of_batch((x,)) == of_batch((x.flip(0),))
    (True, False)
    """
    checksum = before
    for part in parts:
        for path, value in leaves(part):
            checksum = _added(zlib.crc32(path.encode(), checksum), value)
    return checksum


def _added(before: int, value: Any) -> int:
    checksum = before
    for tensor in _tensors(value):
        layout = repr((str(tensor.dtype), tuple(tensor.shape)))
        checksum = zlib.crc32(_sums(tensor).cpu().numpy().tobytes(), zlib.crc32(layout.encode(), checksum))
    if isinstance(value, np.ndarray):
        value = value.tolist()  # texts and objects
    if isinstance(value, str | int | float | bool | list | None):
        checksum = zlib.crc32(repr(value).encode(errors="surrogatepass"), checksum)
    return checksum


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        yield torch.from_numpy(np.ascontiguousarray(value))
    elif isinstance(value, PackedSequence):
        yield from (value.data, value.batch_sizes)
    elif isinstance(value, Tensor):
        yield from value.unbind() if value.is_nested else (value,)


def _sums(tensor: Tensor) -> Tensor:
    """The sum over each sample's bits, eight bytes a number, (N,)."""
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()  # of a network that is sharded over processes
    if type(tensor) not in (Tensor, nn.Parameter) and hasattr(tensor, "dequantize"):
        tensor = tensor.dequantize()  # of torchao's classes, which have no bytes of their own
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if tensor.numel() == 0:
        return torch.zeros(0, dtype=torch.int64)
    rows = tensor.resolve_neg().reshape(len(tensor) if tensor.ndim else 1, -1).contiguous().view(torch.uint8)
    if rows.shape[1] % _WORD:
        rows = nn.functional.pad(rows, (0, -rows.shape[1] % _WORD))
    elif rows.storage_offset() % _WORD:
        rows = rows.clone()
    return rows.view(torch.int64).sum(dim=1)
