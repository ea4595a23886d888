"""Files of activations: safetensors and `.npz` files, folders of `.npy` files, and arrays in memory, each a `Shard`.

A shard has an array for each layer, under the layer's name, and beside them what `RESERVED` names. Arrays are mapped
into memory where the format allows it (safetensors, `.npy`, and `.npz` files that are not compressed); of a compressed
`.npz` file one shard's arrays are in memory at a time.

vLLM's `ExampleHiddenStatesConnector` writes a safetensors file for each request: `hidden_states` (tokens, layers, d)
and `token_ids` (tokens,), as of version 0.22. Such a file is one sample, whose layers are parts of one array.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ketwork.networks.activations.naming import by_number

RESERVED = ("labels", "mask", "lengths", "sample_ids", "inputs")
"""Names of arrays that are no layers."""

_VLLM = {"hidden_states", "token_ids"}
_SUFFIXES = (".safetensors", ".npz", ".npy")
_FORMATS = "a safetensors or .npz file, a folder of these, or of .npy files (one a layer)"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LOCAL_HEADER = struct.Struct(
    "<26x2H"
)  # of a zip archive's member: lengths of its name and of what follows it

Array = np.ndarray | Tensor
Source = str | PathLike[str] | Mapping[str, Any] | Iterable[Any]


@dataclass(frozen=True)
class Stored:
    """An array of a shard: its shape, whether it holds numbers, and a reader of some of its rows."""

    shape: tuple[int, ...]
    numeric: bool
    complex: bool
    read: Callable[[int, int], Array]

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def all(self) -> Array:
        """The whole array."""
        return self.read(0, len(self))


@dataclass(frozen=True)
class Shard:
    """Some samples' activations: `open` gives its arrays by name, which can be read inside the block.

    `ordered` says that they come in the order in which they were put there.
    """

    name: str
    open: Callable[[], contextlib.AbstractContextManager[dict[str, Stored]]]
    ordered: bool = False


def shards_of(source: Source, names: list[str] | None = None) -> list[Shard]:
    """The shards of a file or folder, of a mapping of arrays, or of several of these, in their order.

    Files of a folder come in the order of their names, numbers in these by their value. `names` are those of the layers
    in vLLM's files.

    Raises:
        ValueError: a file or folder that is none of these.
        TypeError: something else.
    """
    if isinstance(source, Mapping):
        return [Shard("the mapping", lambda: _in_memory(source), ordered=True)]
    if isinstance(source, (str, PathLike)):
        return _of_path(Path(source), names)
    if isinstance(source, Iterable) and not isinstance(source, (Tensor, np.ndarray, bytes)):
        return [
            replace(shard, name=f"mapping {i} of the list") if isinstance(each, Mapping) else shard
            for i, each in enumerate(source)
            for shard in shards_of(each, names)
        ]
    raise TypeError(
        "Argument `source` must be a path, a mapping of layers' names to arrays, or a list of these, but is a "
        f"{type(source).__name__}."
    )


def _of_path(path: Path, names: list[str] | None) -> list[Shard]:
    if path.is_dir():
        return _of_folder(path, names)
    if not path.exists():
        raise ValueError(f"Argument `source` must name {_FORMATS}, but there is no {str(path)!r}.")
    if path.suffix == ".safetensors":
        return [Shard(path.name, lambda: _safetensors(path, names))]
    if path.suffix == ".npz":
        return [Shard(path.name, lambda: _npz(path), ordered=True)]
    more = " An .npy file holds one layer: name the folder that it is in." if path.suffix == ".npy" else ""
    raise ValueError(f"Argument `source` must name {_FORMATS}, but is {str(path)!r}.{more}")


def _of_folder(folder: Path, names: list[str] | None) -> list[Shard]:
    entries = sorted(
        (each for each in folder.iterdir() if _counts(each)), key=lambda each: by_number(each.name)
    )
    files = [each for each in entries if each.is_file()]
    unknown = [each.name for each in files if each.suffix not in _SUFFIXES]
    if unknown:
        raise ValueError(
            f"Argument `source` must name a folder of files of activations, but {str(folder)!r} holds "
            f"{', '.join(unknown[:5])}{' …' if len(unknown) > 5 else ''}. Give {_FORMATS} alone."
        )
    arrays = [each for each in files if each.suffix == ".npy"]
    if arrays and len(arrays) < len(entries):
        raise ValueError(
            f"Argument `source` must name a folder of one kind of shards, but {str(folder)!r} holds .npy files, which "
            "are one shard together, and others beside them. Put the .npy files of each shard in a folder of their own."
        )
    if arrays:
        return [Shard(folder.name, lambda: _npy(arrays))]
    shards = [shard for each in entries for shard in _of_path(each, names)]
    if not shards:
        raise ValueError(f"Argument `source` must name {_FORMATS}, but {str(folder)!r} is empty.")
    return shards


def _counts(path: Path) -> bool:
    """Not hidden files, nor the locks that vLLM leaves beside its files."""
    return not path.name.startswith(".") and path.suffix != ".lock"


@contextlib.contextmanager
def _in_memory(source: Mapping[str, Any]) -> Iterator[dict[str, Stored]]:
    arrays = {str(name): _array(value) for name, value in source.items()}
    yield {name: _of_array(value) for name, value in arrays.items()}


def _array(value: Any) -> Array:
    return value.detach().cpu() if isinstance(value, Tensor) else np.asarray(value)


def _of_array(array: Array) -> Stored:
    if isinstance(array, Tensor):
        return Stored(tuple(array.shape), True, array.is_complex(), lambda start, stop: array[start:stop])
    kind = array.dtype.kind
    return Stored(array.shape, kind in "biufc", kind == "c", lambda start, stop: array[start:stop])


@contextlib.contextmanager
def _npy(paths: list[Path]) -> Iterator[dict[str, Stored]]:
    arrays = {}
    for path in paths:
        with _reading(path):
            arrays[path.stem] = _of_array(np.load(path, mmap_mode="r", allow_pickle=False))
    yield arrays


@contextlib.contextmanager
def _npz(path: Path) -> Iterator[dict[str, Stored]]:
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        unpacked: dict[str, np.ndarray] = {}

        def read(name: str) -> Callable[[int, int], Array]:
            def rows(start: int, stop: int) -> Array:
                if name not in unpacked:
                    mapped = _mapped(path, archive.zip, f"{name}.npy")
                    unpacked[name] = archive[name] if mapped is None else mapped
                return unpacked[name][start:stop]

            return rows

        arrays = {}
        for name in archive.files:
            shape, dtype = _header(archive.zip, f"{name}.npy")[:2]
            arrays[name] = Stored(shape, dtype.kind in "biufc", dtype.kind == "c", read(name))
        yield arrays


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Shape, dtype, whether it is in Fortran's order, and the bytes before the numbers of an archive's array."""
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member} is of version {version} of the format")
        shape, transposed, dtype = _HEADERS[version](file)
        return shape, dtype, transposed, file.tell()


def _mapped(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray | None:
    """An archive's array, mapped into memory; None of a compressed one."""
    about = archive.getinfo(member)
    shape, dtype, transposed, start = _header(archive, member)
    if about.compress_type != zipfile.ZIP_STORED or dtype.hasobject or 0 in shape or not shape:
        return None
    with path.open("rb") as file:
        file.seek(about.header_offset)
        start += (
            about.header_offset
            + _LOCAL_HEADER.size
            + sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
        )
    return np.memmap(path, dtype, "r", start, shape, "F" if transposed else "C")


@contextlib.contextmanager
def _safetensors(path: Path, names: list[str] | None) -> Iterator[dict[str, Stored]]:
    with _reading(path), safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
        arrays = {name: _of_slice(each) for name, each in slices.items()}
        yield _of_vllm(path, arrays, names) if arrays.keys() == _VLLM else arrays


def _of_slice(part: Any) -> Stored:
    def read(start: int, stop: int) -> Tensor:
        return part[start:stop]

    return Stored(tuple(part.get_shape()), True, part.get_dtype().startswith("C"), read)


def _of_vllm(path: Path, arrays: dict[str, Stored], names: list[str] | None) -> dict[str, Stored]:
    """One request's arrays in the form of others: a layer's rows are its tokens, all of one sample."""
    states, tokens = arrays["hidden_states"], arrays["token_ids"]
    if len(states.shape) != 3 or tokens.shape != states.shape[:1]:
        raise ValueError(
            f"Argument `source` must name files of activations, but in {path.name} `hidden_states` has shape "
            f"{states.shape} and `token_ids` {tokens.shape}, where vLLM writes (tokens, layers, d) and (tokens,)."
        )
    n, layers, d = states.shape
    if names is not None and len(names) != layers:
        raise ValueError(
            f"Argument `names` must name the {layers} layers of {path.name}, in the order in which vLLM was to give "
            f"them, but has {len(names)} names."
        )
    states = _of_array(_array(states.all()))

    def read(layer: int) -> Callable[[int, int], Array]:
        return lambda start, stop: states.read(start, stop)[:, layer]

    called = names or [f"hidden_states.{i}" for i in range(layers)]
    rows = {name: Stored((n, d), True, False, read(i)) for i, name in enumerate(called)}
    ids = _of_array(np.full(n, path.stem))
    return rows | {"inputs": tokens, "sample_ids": ids}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of a damaged file name it."""
    try:
        yield
    except (SafetensorError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(
            f"Argument `source` must name complete files of activations, but {str(path)!r} cannot be read ({error})."
        ) from error
    except ValueError as error:
        if str(error).startswith("Argument"):
            raise
        raise ValueError(
            f"Argument `source` must name complete files of arrays of numbers, but {str(path)!r} is none ({error})."
        ) from error


def as_tensor(array: Array) -> Tensor:
    """Numbers of an array, copied where they are of a file."""
    if isinstance(array, Tensor):
        return array
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
