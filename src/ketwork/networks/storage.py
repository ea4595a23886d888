"""Records on disk: tensors as safetensors, all else as JSON in the file's header; nothing that could run code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ketwork import _files

_KEY = "ketwork"
_COMPLEX = ":re,im"  # safetensors has no complex128: complex tensors get a last axis (real, imaginary)


def write(path: Path, kind: str, schema: int, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Writes a record of that kind and schema version to `path`, in one step."""
    text = json.dumps({"kind": kind, "schema": schema, **header}, allow_nan=False)
    _files.write_tensors(path, dict(_packed(*pair) for pair in tensors.items()), {_KEY: text})


def read(path: Path, kind: str, schema: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and header of a record that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, truncated, or of a newer schema.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Argument `path` must be a saved {kind}, but there is no file {str(path)!r}."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, kind, schema, file.metadata() or {})
            names = list(file.keys())
            return dict(_unpacked(name, file.get_tensor(name)) for name in names), header
    except SafetensorError as error:
        raise ValueError(
            f"Argument `path` must be a saved {kind}, but {str(path)!r} is not a whole safetensors file ({error}). "
            f"Save the {kind} again."
        ) from error


def _packed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if tensor.is_complex():
        name, tensor = f"{name}{_COMPLEX}", torch.view_as_real(tensor.resolve_conj())
    return name, tensor.cpu().contiguous()


def _unpacked(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name.endswith(_COMPLEX):
        # A view would lie in the file's memory, which is aligned for numbers of 8 bytes, not of 16.
        return name.removesuffix(_COMPLEX), torch.complex(*tensor.unbind(-1))
    return name, tensor


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _header(path: Path, kind: str, schema: int, metadata: dict[str, str]) -> dict[str, Any]:
    something_else = (
        f"Argument `path` must be a saved {kind}, but {str(path)!r} is a safetensors file of something else."
    )
    try:
        header = json.loads(metadata.get(_KEY, "null"))
    except json.JSONDecodeError as error:
        raise ValueError(something_else) from error
    if (
        not isinstance(header, dict)
        or header.get("kind") != kind
        or not isinstance(header.get("schema"), int)
    ):
        raise ValueError(something_else)
    if header["schema"] > schema:
        raise ValueError(
            f"Argument `path` must be a {kind} of schema {schema} or older, but {str(path)!r} has schema "
            f"{header['schema']}: a newer ketwork wrote it. Upgrade ketwork to read it."
        )
    return header
