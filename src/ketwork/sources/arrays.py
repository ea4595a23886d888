"""NumPy files: `.npz` with features and labels by name, `.npy` with features alone. Never pickled objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

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
) -> LoadedData:
    """Batches of an array, and of the labels beside it.

    Of an `.npz` file, the array `inputs` (default `x`, or the only one) with the labels `label` (default `y`,
    where there is one); an `.npy` file holds the one array, and is mapped into memory, not read.
    """
    if path.suffix == ".npy":
        with _reading(path):
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        return from_arrays(features, None, batch_size=batch_size, dtype=dtype, name=path.name)
    # Opened here, since NumPy leaves a file that is no archive open.
    with path.open("rb") as file, _reading(path), np.load(file, allow_pickle=False) as archive:
        input_name, label_name = _names(archive.files, inputs, label, path)
        features = archive[input_name]
        labels = None if label_name is None else archive[label_name]
    loaded = from_arrays(
        features,
        labels,
        batch_size=batch_size,
        dtype=dtype,
        name=f"array {input_name!r}",
        label_name=label_name or "labels",
    )
    loaded.description.update(input=input_name, label=label_name)
    return loaded


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
