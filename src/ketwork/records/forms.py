"""What the tensors of a record must be before they are used: a file may hold anything, and none of it is trusted.

Sizes that a header declares are compared with the tensors' own, which the file's length bounds, before anything is
made of them.
"""

from __future__ import annotations

import math
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


class Count(int):
    """In a template: a whole number that is not negative."""


def check(value: Any, template: Any, where: str) -> None:
    """Raises `Malformed` unless plain data has the form of the template.

    A type stands for its values, a list of one template for lists of it, a tuple for one of several, `{str: template}`
    for a mapping from any names, another mapping for one that has these names at least; other values for themselves.

    >>> check({"d": 3, "names": ["a"]}, {"d": Count, "names": [str]}, "header")
    >>> check({"d": -3}, {"d": Count}, "header")
    Traceback (most recent call last):
    ketwork.records.forms.Malformed: header.d must be a count, but is -3
    """
    if isinstance(template, tuple):
        if not any(_fits(value, one, where) for one in template):
            raise Malformed(f"{where} must be {' or '.join(map(_named, template))}, but is {_told(value)}")
    elif isinstance(template, list):
        check(value, list, where)
        for i, inner in enumerate(value):
            check(inner, template[0], f"{where}[{i}]")
    elif isinstance(template, Mapping):
        check(value, dict, where)
        named = dict.fromkeys(value, template[str]) if str in template else template
        for name, inner in named.items():
            if name not in value:
                raise Malformed(f"{where} lacks {name!r}")
            check(value[name], inner, f"{where}.{name}")
    elif not _is(value, template):
        raise Malformed(f"{where} must be {_named(template)}, but is {_told(value)}")


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


def _fits(value: Any, template: Any, where: str) -> bool:
    try:
        check(value, template, where)
    except Malformed:
        return False
    return True


def _is(value: Any, template: Any) -> bool:
    if template is Count:
        return type(value) is int and value >= 0
    if template is float:
        return type(value) in (int, float) and math.isfinite(value)
    if isinstance(template, type):
        return type(value) is template
    return type(value) is type(template) and value == template


def _named(template: Any) -> str:
    if template is Count:
        return "a count"
    return template.__name__ if isinstance(template, type) else repr(template)


def _told(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 40 else f"{words[:40]} …"
