"""From whatever holds the data to batches: what to call the network with, labels, mask and size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ketwork.networks.activations.axes import as_mask
from ketwork.networks.activations.outputs import map_tensors, tensors

Forward = Callable[[nn.Module, Any], Any]
Mask = str | Tensor | np.ndarray | Callable[[Any], Tensor] | None

LABEL_KEYS = ("labels", "label")
_MASK_KEY = "attention_mask"


@dataclass(frozen=True)
class Batch:
    """One batch: `content` as it came (on the network's device), what of it are labels, which positions exist.

    `elsewhere` says that another process takes it in; it is not on the device then.
    """

    content: Any
    labels: Any
    mask: Tensor | None
    size: int
    elsewhere: bool = False

    def run(self, model: nn.Module, forward: Forward | None, without: str | None = None) -> Any:
        """Calls the network: `model(x)`, `model(**mapping)` less the labels, or `forward(model, batch)`.

        `without` is the key of labels that go by another name.
        """
        if forward is not None:
            return forward(model, self.content)
        if isinstance(self.content, Mapping):
            labels = (*LABEL_KEYS, without)
            return model(**{key: value for key, value in self.content.items() if key not in labels})
        return model(_inputs(self.content))


class EmptyDataError(ValueError):
    """The data hold no sample."""


def batches(
    data: Any,
    *,
    batch_size: int,
    max_samples: int | None = None,
    mask: Mask = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    mine: Callable[[int], bool] | None = None,
) -> Iterator[Batch]:
    """The batches of `data`, at most `max_samples` samples of it.

    Args:
        data: an array or tensor (samples first), a mapping of them, a tuple (inputs, labels) of them (labels
            may be a list or a pandas column too), a `Dataset`, a `DataLoader`, or any iterable of batches. A
            batch is a tensor, a tuple or list (x, y), or a mapping.
        batch_size: for data that is not batched yet.
        max_samples: stop after so many.
        mask: where positions exist: the key of a mapping (None: `attention_mask` where there is one), an
            array (all samples, positions), or a callable batch -> (samples, positions).
        dtype: what floating NumPy arrays become (they are float64 by habit, networks are not); complex ones
            too, if it is complex.
        device: where tensors go.
        mine: which batches, by number, are taken in here; None for all.

    Raises:
        TypeError, ValueError: data that is none of these, or holds no sample.
    """
    left = max_samples
    start = 0
    number = 0
    for content in _contents(data, batch_size):
        elsewhere = mine is not None and not mine(number)
        content = _as_tensors(content, dtype)
        if not elsewhere:
            content = map_tensors(content, lambda tensor: tensor.to(device))
        size = _size(content)
        if left is not None and size > left:
            content, size = _first(content, left, size), left
        if size == 0:
            continue
        present = None if elsewhere else _mask(content, mask, start, size, device)
        yield Batch(content, _labels(content), present, size, elsewhere)
        start += size
        number += 1
        if left is not None:
            left -= size
            if left == 0:
                return
    if start == 0:
        raise EmptyDataError("Argument `data` must hold at least one sample, but is empty.")


def _contents(data: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(data, (np.ndarray, Tensor)):
        if data.ndim == 0:
            raise ValueError("Argument `data` must have samples on its first axis, but is a single number.")
        return (data[i : i + batch_size] for i in range(0, len(data), batch_size))
    if isinstance(data, DataLoader):
        return _loaded(data)
    if isinstance(data, (Dataset, IterableDataset)):
        return DataLoader(data, batch_size=batch_size)
    if isinstance(data, tuple) and _are_inputs_and_plain_labels(data):
        data = data[0], np.array(data[1])  # a copy, since a pandas column cannot be written to
    if isinstance(data, Mapping) or (isinstance(data, tuple) and _are_arrays(data)):
        values = list(data.values()) if isinstance(data, Mapping) else list(data)
        lengths = [len(value) for value in values]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"Argument `data` must hold arrays with one entry a sample, but their lengths are {lengths}."
            )
        return (_slice(data, i, i + batch_size) for i in range(0, lengths[0] if lengths else 0, batch_size))
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return data
    raise TypeError(
        "Argument `data` must be an array, a tensor, a Dataset, a DataLoader or an iterable of batches, "
        f"but is a {type(data).__name__}."
    )


def _loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader; where a worker of it died before its last one was taken over, the error says so."""
    try:
        yield from loader
    except (OSError, EOFError) as error:
        if not loader.num_workers or "DataLoader worker" in str(error):
            raise
        raise RuntimeError(f"A DataLoader worker ended before its batch was taken over ({error}).") from error


def _are_arrays(data: tuple[Any, ...]) -> bool:
    return len(data) == 2 and all(
        isinstance(value, (np.ndarray, Tensor)) and value.ndim > 0 for value in data
    )


def _are_inputs_and_plain_labels(data: tuple[Any, ...]) -> bool:
    """Whether it is an array and a list (or pandas column) of single labels, which no batch could be."""
    if len(data) != 2 or not isinstance(data[0], (np.ndarray, Tensor)):
        return False
    labels = data[1]
    if isinstance(labels, list):
        return bool(labels) and all(isinstance(label, (str, int, float, np.generic)) for label in labels)
    return isinstance(labels, pd.Series)


def _slice(data: Any, start: int, stop: int) -> Any:
    if isinstance(data, Mapping):
        return {key: value[start:stop] for key, value in data.items()}
    return tuple(value[start:stop] for value in data)


def _as_tensors(content: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(content, np.ndarray) and content.dtype.kind in "biufc":  # labels may be strings
        tensor = torch.from_numpy(np.ascontiguousarray(content))
        if dtype is None:
            return tensor
        return (
            tensor.to(dtype)
            if tensor.is_floating_point() or (tensor.is_complex() and dtype.is_complex)
            else tensor
        )
    if isinstance(content, Mapping):
        return {key: _as_tensors(value, dtype) for key, value in content.items()}
    if isinstance(content, (tuple, list)) and not hasattr(content, "_fields"):
        return type(content)(_as_tensors(value, dtype) for value in content)
    return content


def _size(content: Any) -> int:
    first = next(tensors(content), None)
    if first is None or first.ndim == 0:
        raise TypeError(
            "A batch must be a tensor, a tuple (x, y) or a mapping of tensors with samples on the first axis, "
            f"but is a {type(content).__name__}. Use `forward=` to call the network in another way."
        )
    return len(first)


def _first(content: Any, count: int, size: int) -> Any:
    """The first `count` samples of a batch of `size`."""
    return map_tensors(
        content, lambda tensor: tensor[:count] if tensor.ndim and len(tensor) == size else tensor
    )


def _inputs(content: Any) -> Any:
    if isinstance(content, (tuple, list)):
        if len(content) > 2:
            raise TypeError(
                f"A batch must be a tensor, (x, y) or a mapping, but is a {type(content).__name__} of "
                f"{len(content)}. Use `forward=lambda model, batch: model(...)` to say what the network takes."
            )
        return content[0]
    return content


def _labels(content: Any) -> Any:
    if isinstance(content, Mapping):
        return next((content[key] for key in LABEL_KEYS if key in content), None)
    if isinstance(content, (tuple, list)) and len(content) == 2:
        return content[1]
    return None


def _mask(
    content: Any, mask: Mask, start: int, size: int, device: torch.device | str | None
) -> Tensor | None:
    if mask is None or isinstance(mask, str):
        key = mask or _MASK_KEY
        found = content.get(key) if isinstance(content, Mapping) else None
        if found is None and mask is not None:
            names = (
                ", ".join(map(str, content))
                if isinstance(content, Mapping)
                else "no keys: it is not a mapping"
            )
            raise ValueError(
                f"Argument `mask` must name a key of each batch, but is {mask!r}; the batch has {names}."
            )
        if mask is None and isinstance(found, Tensor) and found.ndim != 2:
            found = None  # a mask between pairs of positions says nothing of single ones
    elif callable(mask):
        found = mask(content)
    else:
        found = torch.as_tensor(mask)[start : start + size].to(device)
    return None if found is None else as_mask(found, size)
