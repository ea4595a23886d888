"""What the tensors of a record must be before they are used: a file may hold anything, and none of it is trusted.

Sizes that a header declares are compared with the tensors' own, which the file's length bounds, before anything is
made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = {
    "byte": (torch.uint8,),
    "int": (torch.int64,),
    "real": _REAL,
    "sum": (torch.float64, torch.complex128),
    "ket": (*_REAL, torch.complex64, torch.complex128),
    "value": (torch.float32, torch.float64),  # may be NaN
}


class Malformed(ValueError):
    """A part of a record is missing, or is not what it must be."""


@dataclass(frozen=True)
class Form:
    """The form of a tensor as `check_tensors` takes it, beside its type: `Annotated[Tensor, Form("real n d")]`."""

    text: str


def check_tensors(tensors: Mapping[str, Tensor], sizes: dict[str, int], **forms: str) -> dict[str, int]:
    """The sizes of the named axes, of tensors that have these forms: a kind and the names of the axes.

    Kinds are byte, int, real, ket (real or complex), sum (the same in 64 bits a number) and value (real, or NaN); all
    but the last are finite. `sizes` are the
    axes known before. A form with `?` may be missing.

    >>> check_tensors({"x": torch.ones(2, 3)}, {"d": 3}, x="real n d", y="int n?")
    {'d': 3, 'n': 2}
    """
    sizes = dict(sizes)
    for name, form in forms.items():
        kind, *axes = form.rstrip("?").split()
        if name not in tensors:
            if form.endswith("?"):
                continue
            raise Malformed(f"there is no tensor {name!r}")
        tensor = tensors[name]
        fits = len(axes) == tensor.ndim and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(axes, tensor.shape, strict=True)
        )
        if not fits or tensor.dtype not in _DTYPES[kind]:
            known = ", ".join(f"{axis} = {sizes[axis]}" for axis in dict.fromkeys(axes) if axis in sizes)
            raise Malformed(
                f"tensor {name!r} must be {kind} ({', '.join(axes)}) with {known}, but is {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
        if kind in ("real", "sum", "ket") and not bool(torch.isfinite(tensor).all()):
            raise Malformed(f"tensor {name!r} must be finite, but is not")
    return sizes


def check_codes(codes: Tensor, classes: int) -> None:
    """Raises `Malformed` unless all entries are codes of so many classes: 0 … classes − 1."""
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < classes:
        raise Malformed(f"codes of {classes} classes cannot lie in {int(codes.min())} … {int(codes.max())}")


def check_source(settings: dict[str, Any]) -> None:
    """Raises `Malformed` where what a command noted of its model and data is not a mapping of mappings."""
    source = settings.get("source", {})
    if not isinstance(source, dict) or not all(isinstance(part, dict) for part in source.values()):
        raise Malformed("settings.source must describe the model and the data")
