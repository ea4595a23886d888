"""Numbers that hooks leave on the layers' devices, read together once a forward pass is over.

To read one number off a device is to wait for all that was computed there before. So what a hook computes stays where
it is, and this brings all of it over at once: one transfer a batch and device, however many layers there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, str]
"""A record and the name of one of its attributes."""


def numbers_of(records: Iterable[Any]) -> list[Place]:
    """The attributes of these records that are single numbers on a device still."""
    return [
        (record, name)
        for record in records
        for name, value in vars(record).items()
        if isinstance(value, Tensor) and value.ndim == 0
    ]


def read_numbers(places: Iterable[Place]) -> None:
    """Puts Python numbers in the place of single numbers, and tensors on the host in that of rows (n,) of them."""
    held: dict[torch.device, list[tuple[Place, Tensor]]] = {}
    for record, name in places:
        tensor = getattr(record, name)
        held.setdefault(tensor.device, []).append(((record, name), tensor))
    for parts in held.values():
        flat = torch.cat(
            [tensor.flatten().double() for _, tensor in parts]
        ).cpu()  # integers are exact to 2⁵³
        rows = flat.split([tensor.numel() for _, tensor in parts])
        for ((record, name), tensor), row in zip(parts, rows, strict=True):
            on_host = row.to(tensor.dtype)
            setattr(record, name, on_host.clone() if tensor.ndim else on_host.item())
