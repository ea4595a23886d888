"""Checks of arguments. Each error names the argument, what it must be, what it was, and the remedy."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

ArrayLike = Tensor | np.ndarray | Sequence[Any]
Subsystems = int | Iterable[int]


def tolerance(x: Tensor) -> float:
    """How far a norm, a trace or a Hermitian pair may be off: √eps of the dtype (1.5e−8, 3.5e−4)."""
    return math.sqrt(torch.finfo(x.dtype).eps)


def beyond(off: float, tol: float) -> str:
    """A deviation beside the tolerance, both in words that tell them apart.

    >>> beyond(0.1, 0.2), beyond(1.2345e-7, 1.2341e-7)
    ('off by 0.1 where 0.2 is allowed', 'off by 1.235e-07 where 1.234e-07 is allowed')
    """
    digits = next((n for n in range(2, 17) if f"{off:.{n}g}" != f"{tol:.{n}g}"), 17)
    return f"off by {off:.{digits}g} where {tol:.{digits}g} is allowed"


def floating(x: ArrayLike, name: str, like: Tensor | None = None) -> Tensor:
    """`x` as a finite real or complex tensor of at least 32 bits: float16 and bfloat16 become float32.

    What is no tensor takes the precision of `like`, the companion that it stands beside, but for an array of fewer
    bits, whose rounding that would not allow.
    """
    tensor = torch.as_tensor(x, device=None if like is None or isinstance(x, Tensor) else like.device)
    if like is not None and not isinstance(x, Tensor) and tensor.dtype != torch.bool:
        dtype = (
            torch.promote_types(like.real.dtype, torch.complex32) if tensor.is_complex() else like.real.dtype
        )
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "fc" or _bits(tensor.dtype) >= _bits(dtype):
            tensor = torch.as_tensor(x, dtype=dtype, device=like.device)  # anew, from all digits of a list
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise TypeError(
            f"Argument `{name}` must have a floating-point or complex dtype, but has {tensor.dtype}. "
            "Use `.double()`."
        )
    if _bits(tensor.dtype) < 32:
        tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
    bad = tensor.numel() - int(torch.isfinite(tensor.detach()).sum())
    if bad:
        raise ValueError(
            f"Argument `{name}` must be finite, but {bad} of its {tensor.numel()} entries are not. "
            "Drop or replace them first."
        )
    return tensor.resolve_conj()


def _bits(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits


def axes(x: Tensor, name: str, shape: str, minimum: int) -> None:
    """`x` has at least `minimum` axes and its last one is not empty."""
    if x.ndim < minimum or x.shape[-1] == 0:
        raise ValueError(f"Argument `{name}` must have shape {shape} with d ≥ 1, but has {tuple(x.shape)}.")


def dims_of(dims: Sequence[int] | None, d: int) -> tuple[int, ...]:
    """The dimensions of the subsystems, whose product is d; a single system where none are given."""
    if dims is None:
        return (d,)
    sizes = tuple(int(n) for n in dims)
    if not sizes or min(sizes) < 1 or math.prod(sizes) != d:
        raise ValueError(f"Argument `dims` must be positive with product {d}, but is {sizes}.")
    return sizes


def subsystems(which: Subsystems, count: int, name: str, proper: bool = False) -> tuple[int, ...]:
    """Sorted subsystem indices: the first `which` ones for an int, else the given collection."""
    given = tuple(range(which)) if isinstance(which, int) else tuple(int(i) for i in which)
    chosen = tuple(sorted(i + count if i < 0 else i for i in given))
    inside = all(0 <= i < count for i in chosen) and len(set(chosen)) == len(chosen)
    negative_count = isinstance(which, int) and which < 1
    if not inside or not chosen or negative_count or (proper and len(chosen) == count):
        some = "some but not all" if proper else "one or more"
        raise ValueError(
            f"Argument `{name}` must choose {some} of the {count} subsystems (a number n means the first n), "
            f"but is {which!r}. Give the state its `dims=` if it should have more subsystems."
        )
    return chosen


def unit(value: Tensor, name: str, what: str, remedy: str, tol: float) -> None:
    """Every entry of `value` (norms, traces, sums) is 1 within `tol`."""
    value = value.detach()
    off = (value - 1).abs()
    if bool((off > tol).any()):
        worst, most = value.flatten()[off.argmax()].item(), off.max().item()
        raise ValueError(
            f"Argument `{name}` must have {what} 1, but has {what} {worst:.6g}, {beyond(most, tol)}. {remedy}"
        )


def probabilities(p: ArrayLike, name: str, shape: str = "(*batch, n)", like: Tensor | None = None) -> Tensor:
    """`p` as real, non-negative numbers whose sum over the last axis is 1, in the precision of `like` at least."""
    q = floating(p, name, like)
    axes(q, name, shape, 1)
    if q.is_complex():
        raise ValueError(f"Argument `{name}` must be real, but is {q.dtype}. Use its squared modulus.")
    least = q.detach().amin().item() if q.numel() else 0.0
    if least < 0:
        raise ValueError(
            f"Argument `{name}` must be non-negative, but has {least:.3g} where 0 is the least. Use a square or "
            "softmax, or `.clamp(min=0)` where it is rounding."
        )
    unit(q.sum(-1), name, "sum", "Divide it by its sum.", tolerance(q))
    if like is None or _bits(like.dtype) <= _bits(q.dtype):
        return q
    q = q.to(like.real.dtype)  # whose rounding error its own precision would not allow
    return q / q.sum(-1, keepdim=True)


def at_least_one(value: int, name: str) -> None:
    """`value` is a positive number."""
    if value < 1:
        raise ValueError(f"Argument `{name}` must be ≥ 1, but is {value}.")


def log_base(base: float) -> float:
    """ln(base), for a base above 1."""
    if not base > 1:
        raise ValueError(f"Argument `base` must be above 1, but is {base}. Use 2 for bits, math.e for nats.")
    return math.log(base)


def hermitian(x: Tensor, name: str) -> Tensor:
    """The Hermitian part of a square `x` that is Hermitian up to rounding."""
    axes(x, name, "(*batch, d, d)", 2)
    if x.shape[-1] != x.shape[-2]:
        raise ValueError(f"Argument `{name}` must be square, but has shape {tuple(x.shape)}.")
    y = x.detach()
    off, tol = (y - y.mH).abs().amax((-2, -1)), tolerance(y) * y.abs().amax((-2, -1))
    if bool((off > tol).any()):
        worst = (off - tol).argmax()
        raise ValueError(
            f"Argument `{name}` must be Hermitian, but differs from its adjoint, "
            f"{beyond(off.flatten()[worst].item(), tol.flatten()[worst].item())}. Use `({name} + {name}.mH) / 2`."
        )
    return (x + x.mH) / 2


def orthonormal(basis: ArrayLike, name: str, d: int | None = None, like: Tensor | None = None) -> Tensor:
    """`basis` as a d×d matrix with orthonormal columns."""
    b = floating(basis, name, like)
    if b.ndim != 2 or b.shape[0] != b.shape[1] or (d is not None and b.shape[0] != d):
        size = "d" if d is None else d
        raise ValueError(f"Argument `{name}` must have shape ({size}, {size}), but has {tuple(b.shape)}.")
    c = b.detach()
    off = (c.mH @ c - torch.eye(b.shape[0], dtype=b.dtype, device=b.device)).abs().max().item()
    if off > tolerance(b):
        raise ValueError(
            f"Argument `{name}` must have orthonormal columns, but they are {beyond(off, tolerance(b))}. "
            "Use `torch.linalg.qr(basis).Q`."
        )
    return b


def same_size(a: int, b: int, name_a: str, name_b: str) -> None:
    """Two states live in spaces of equal dimension."""
    if a != b:
        raise ValueError(f"Arguments `{name_a}` and `{name_b}` must have equal d, but have {a} and {b}.")
