"""NumPy files: `.npz` with features and labels by name, `.npy` with features alone. Never pickled objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ketwork._draws import choose
from ketwork.sources.archives import member_of
from ketwork.sources.batches import ArrayBatches, LoadedData, check_features
from ketwork.sources.errors import DAMAGED, SourceError, listed, nearest
from ketwork.sources.labels import encode_labels

_INPUTS = ("x", "X")
_LABELS = ("y", "Y", "label", "labels")


def load_arrays(
    path: Path,
    *,
    inputs: str | None,
    label: str | None,
    batch_size: int,
    dtype: torch.dtype,
    samples: int | None = None,
    seed: int = 0,
) -> LoadedData:
    """Batches of an array, and of the labels beside it.

    Of an `.npz` file, the array `inputs` (default `x`, or the only one) with the labels `label` (default `y`,
    where there is one); an `.npy` file holds the one array, and is mapped into memory, not read. Where `samples` are
    fewer than an archive has, they are drawn, and no others are kept in memory.
    """
    if path.suffix == ".npy":
        with _reading(path):
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        return from_arrays(features, None, batch_size=batch_size, dtype=dtype, name=path.name)
    # Opened here, since NumPy leaves a file that is no archive open.
    with path.open("rb") as file, _reading(path), np.load(file, allow_pickle=False) as archive:
        input_name, label_name = _names(archive.files, inputs, label, path)
        part = None if samples is None else _drawn(archive, input_name, label_name, samples, seed)
        features = archive[input_name] if part is None else part.features
        labels = None if label_name is None else archive[label_name] if part is None else part.codes
    loaded = from_arrays(
        features,
        labels,
        batch_size=batch_size,
        dtype=dtype,
        name=f"array {input_name!r}",
        label_name=label_name or "labels",
    )
    loaded.description.update(input=input_name, label=label_name)
    return loaded if part is None else replace(loaded, taken=part.taken, label_names=part.names)


class _Part(NamedTuple):
    """Rows of an archive, their labels and the labels' names where there are any, and in words which rows they are."""

    features: np.ndarray
    codes: np.ndarray | None
    names: tuple[str, ...] | None
    taken: str


def _drawn(archive: Any, input_name: str, label_name: str | None, samples: int, seed: int) -> _Part | None:
    """So many rows of an archive, None where it has no more of them, or they do not lie one after the other.

    The archive is decompressed piece by piece: a small one may declare, and unpack to, more than fits into memory.
    """
    member = member_of(archive, input_name)
    beside = None if label_name is None else member_of(archive, label_name)
    if member is None or member.rows <= samples or (label_name is not None and beside is None):
        return None
    check_features(
        np.broadcast_to(np.empty((), member.dtype), member.shape), f"array {input_name!r}", "input"
    )
    if beside is not None and beside.rows != member.rows:
        raise SourceError(
            f"Argument `label` must name one label a sample, but {label_name!r} has {beside.rows} values for "
            f"{member.rows} samples."
        )
    codes, names = None, None
    if label_name is not None:
        codes, names = encode_labels(archive[label_name], label_name, member.rows)
    places, taken = choose(member.rows, samples, codes, seed)
    return _Part(member.read(places), None if codes is None else codes[places], names, taken)


def from_arrays(
    features: np.ndarray,
    labels: np.ndarray | None,
    *,
    batch_size: int = 64,
    dtype: torch.dtype = torch.float32,
    name: str = "the array",
    label_name: str = "labels",
) -> LoadedData:
    """Batches of arrays in memory.

    >>> data = from_arrays(np.zeros((5, 3)), np.arange(5), batch_size=2)
    >>> [tuple(x.shape) for x, y in data]
    [(2, 3), (2, 3), (1, 3)]
    """
    check_features(features, name, "input")
    names = None
    if labels is not None:
        labels, names = encode_labels(labels, label_name, len(features))
    batches = ArrayBatches(features, labels, batch_size, dtype)
    shape = list(features.shape[1:])
    return LoadedData(batches, len(features), labels is not None, names, {"kind": "arrays", "shape": shape})


def _names(names: Sequence[str], inputs: str | None, label: str | None, path: Path) -> tuple[str, str | None]:
    label_name = _named(names, label, "label", path) if label else _first(names, _LABELS)
    others = [name for name in names if name != label_name]
    only = others[0] if len(others) == 1 else None
    input_name = _named(names, inputs, "input", path) if inputs else _first(others, _INPUTS) or only
    if input_name is None:
        raise SourceError(
            f"Argument `input` must say which array of {path.name} holds the features, but none is named "
            "'x'. "
            f"It holds: {listed(names) or 'nothing'}."
        )
    return input_name, label_name


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with np.errstate(all="ignore"):  # of the sizes that a damaged header declares
            yield
    except SourceError:
        raise
    except DAMAGED as error:
        if any(word in str(error) for word in ("pickle", "Python objects")):
            raise SourceError(
                f"Argument `data` must hold arrays of numbers or strings, but {path} holds Python objects, "
                "which could "
                "run code, or is no NumPy file. Save it again with a plain dtype."
            ) from error
        raise SourceError(
            f"Argument `data` must name a complete NumPy file, but {path} ({path.stat().st_size:,} bytes) is "
            "truncated "
            "or not one."
        ) from error


def _named(names: Sequence[str], name: str, argument: str, path: Path) -> str:
    if name not in names:
        raise SourceError(
            f"Argument `{argument}` must name an array of {path.name}, but there is no {name!r}. "
            f"Nearest first: {listed(nearest(name, names))}."
        )
    return name


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)
