"""Records on disk: tensors as safetensors, all else as JSON in the file's header; nothing that could run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ketwork.records import files

_KEY = "ketwork"
_COMPLEX = ":re,im"  # safetensors has no complex128: complex tensors get a last axis (real, imaginary)


def write_parts(
    path: Path, kind: str, schema: int, tensors: dict[str, Tensor], header: dict[str, Any]
) -> None:
    """Writes a record of that kind and schema version to `path`, in one step."""
    about = {"kind": kind, "schema": schema, **header}
    files.write_tensors(path, packed_tensors(tensors), about, _KEY)


def read_parts(path: Path, kind: str, schema: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and header of a record that `write_parts` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, truncated, or of a newer schema.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"Argument `path` must be a saved {kind}, but there is no file {str(path)!r}."
        )
    try:
        tensors, header, complete = files.read_tensors(path, _KEY)
    except ValueError as error:
        raise ValueError(
            f"Argument `path` must be a saved {kind}, but {error}. Save the {kind} again."
        ) from error
    _check(path, kind, schema, header)
    if not complete:
        raise ValueError(
            f"Argument `path` must be a saved {kind}, but {str(path)!r} is damaged: what it holds is not what was "
            f"written. Save the {kind} again."
        )
    return unpacked_tensors(tensors), header


def packed_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, none complex, of which no two share memory."""
    return _apart(dict(_packed(*pair) for pair in tensors.items()))


def unpacked_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `packed_tensors` was given."""
    return dict(_unpacked(*pair) for pair in tensors.items())


def _packed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if tensor.is_complex():
        name, tensor = f"{name}{_COMPLEX}", torch.view_as_real(tensor.resolve_conj())
    return name, tensor.cpu().contiguous()


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, of which no two share memory: safetensors refuses those that do."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _unpacked(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    if name.endswith(_COMPLEX):
        if tensor.shape[-1:] != (2,) or tensor.dtype not in (torch.float32, torch.float64):
            return name, tensor  # as no complex tensor was written; its dtype will be refused
        # A view would lie in the file's memory, which is aligned for numbers of 8 bytes, not of 16.
        return name.removesuffix(_COMPLEX), torch.complex(*tensor.unbind(-1))
    return name, tensor


def _check(path: Path, kind: str, schema: int, header: dict[str, Any]) -> None:
    if header.get("kind") != kind or not isinstance(header.get("schema"), int):
        raise ValueError(
            f"Argument `path` must be a saved {kind}, but {str(path)!r} is a safetensors file of something else."
        )
    if header["schema"] > schema:
        raise ValueError(
            f"Argument `path` must be a {kind} of schema {schema} or older, but {str(path)!r} has schema "
            f"{header['schema']}: a newer ketwork wrote it. Upgrade ketwork to read it."
        )
