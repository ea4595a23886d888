"""Networks as plain data and back: the class and what it was constructed with, so that a file can make it again."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.lattices import Lattice
from ketwork.waves.models.network import Network

DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (torch.float32, torch.float64, torch.complex64, torch.complex128)
}


_BEFORE = {"Backflow": {"determinants": 1}}
"""Defaults of the version that wrote files without them."""


class NotPlain(TypeError):
    """A network that was constructed with something that is no plain data."""


def pack(network: Network, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The class and arguments of a network as JSON has them; arrays go to `tensors`, named `spec.0`, `spec.1` ….

    Raises:
        NotPlain: the class is not one of ketwork's, or an argument is a module or object of the user's own.
    """
    kind = type(network)
    if _known().get(kind.__name__) is not kind:
        raise NotPlain(f"{kind.__name__} is not one of ketwork's networks")
    args, kwargs = network.given
    bound = inspect.signature(kind).bind(*args, **kwargs)
    bound.apply_defaults()  # which later versions may change
    return {
        "class": kind.__name__,
        "args": [_packed(value, tensors) for value in bound.args],
        "kwargs": {name: _packed(value, tensors) for name, value in bound.kwargs.items()},
    }


def unpack(spec: dict[str, Any], tensors: dict[str, Tensor]) -> Network:
    """The network that `pack` described, not yet built.

    Raises:
        ValueError: there is no such class, or its arguments are not what it takes.
    """
    kind = _known().get(spec.get("class", ""))
    if kind is None:
        raise ValueError(f"there is no network {spec.get('class')!r}")
    try:
        args = [_unpacked(value, tensors) for value in spec["args"]]
        kwargs = {name: _unpacked(value, tensors) for name, value in spec["kwargs"].items()}
        return kind(*args, **(_BEFORE.get(kind.__name__, {}) | kwargs))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the arguments of {spec['class']} are not what it takes ({error})") from error


def _known() -> dict[str, type[Network]]:
    result, fresh = {}, [Network]
    while fresh:
        kind = fresh.pop()
        fresh += kind.__subclasses__()
        if kind.__module__.startswith("ketwork.waves."):
            result[kind.__name__] = kind
    return result


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, list | tuple):
        return [_packed(inner, tensors) for inner in value]
    if isinstance(value, np.ndarray | Tensor):
        name = f"spec.{len([key for key in tensors if key.startswith('spec.')])}"
        tensors[name] = torch.as_tensor(value).detach()
        return {"tensor": name, "numpy": isinstance(value, np.ndarray)}
    if isinstance(value, Lattice):
        fields = (value.positions, value.period, value.cell)
        return {
            "lattice": value.name,
            "arrays": [_packed(array, tensors) for array in fields],
            "edges": None if value.edges is None else [list(edge) for edge in value.edges],
            "vectors": None if value.vectors is None else value.vectors.tolist(),
        }
    if isinstance(value, Network):
        return {"network": pack(value, tensors)}
    raise NotPlain(f"an argument of the type {type(value).__name__} cannot be saved")


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(inner, tensors) for inner in value)
    if not isinstance(value, dict):
        return value
    if "dtype" in value:
        return DTYPES[value["dtype"]]
    if "tensor" in value:
        result = tensors[value["tensor"]]
        return result.numpy() if value["numpy"] else result
    if "lattice" in value:
        positions, period, cell = (_unpacked(array, tensors) for array in value["arrays"])
        edges = None if value["edges"] is None else tuple((int(i), int(j)) for i, j in value["edges"])
        vectors = None if value.get("vectors") is None else np.array(value["vectors"], dtype=float)
        return Lattice(str(value["lattice"]), positions, period, cell, edges, vectors)
    return unpack(value["network"], tensors)
