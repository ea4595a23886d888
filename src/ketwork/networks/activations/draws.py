"""A fair part of data that have a length: inputs, labels and masks of the samples that are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from ketwork._draws import choose
from ketwork.networks.activations.batching import LABEL_KEYS, Mask
from ketwork.networks.activations.texts import Texts
from ketwork.quantum import Seed


def drawn(
    data: Any, labels: Any, mask: Mask, max_samples: int | None, seed: Seed
) -> tuple[Any, Any, Mask, np.ndarray | None, str | None]:
    """Data, labels and mask of the samples that are taken, their places, and in words which they are.

    Arrays, mappings and tuples of them, and datasets with a length are drawn from (see `choose`); of anything else, a
    stream, the first samples are to be taken: then places are None. The words are None where all are taken.

    Raises:
        ValueError: labels or a mask have not one entry a sample.
    """
    n = _length(data)
    if max_samples is None or (n is not None and n <= max_samples):
        return data, labels, mask, None, None
    if n is None:
        return data, labels, mask, None, f"the first {max_samples:,} samples of a stream"
    beside: dict[str, Any] = {"labels": labels, "mask": mask}
    for name, values in beside.items():
        if _is_array(values) and len(values) != n:
            raise ValueError(
                f"Argument `{name}` must have one entry a sample, but has {len(values)} for {n} samples."
            )
    places, words = choose(n, max_samples, _labels(data, labels), seed)
    labels, mask = (_at(values, places) if _is_array(values) else values for values in (labels, mask))
    return _samples_at(data, places), labels, mask, places, words


def drawn_alike(other: Any, data: Any, places: np.ndarray) -> Any:
    """The samples of other data at the places that were drawn from `data`.

    Raises:
        ValueError: they are not as many, or cannot be drawn from.
    """
    n = _length(data)
    if _length(other) != n:
        raise ValueError(
            f"Argument `other_data` must hold the same samples as `data`, from which some are drawn: {n} of them, in "
            "an array, a mapping, a tuple or a dataset with a length."
        )
    return _samples_at(other, places)


def _samples_at(data: Any, places: np.ndarray) -> Any:
    if isinstance(data, Texts):
        return data.at(places)
    if isinstance(data, Dataset):
        return Subset(data, places.tolist())
    if isinstance(data, Mapping):
        return {key: _at(value, places) for key, value in data.items()}
    if isinstance(data, tuple):
        return tuple(_at(value, places) for value in data)
    return _at(data, places)


def _at(values: Any, places: np.ndarray) -> Any:
    if isinstance(values, Tensor):
        return values[torch.from_numpy(places).to(values.device)]
    if hasattr(values, "__array__"):
        return np.asarray(values)[places]
    return [values[i] for i in places]


def _is_array(values: Any) -> bool:
    """Whether it has an entry for each sample, as labels and masks may."""
    return hasattr(values, "__array__") or (isinstance(values, Sequence) and not isinstance(values, str))


def _length(data: Any) -> int | None:
    """How many samples data have that can be taken in any order; None of a stream."""
    if isinstance(data, (Tensor, np.ndarray)):
        return len(data) if data.ndim else None
    if isinstance(data, Dataset) and not isinstance(data, (IterableDataset, DataLoader)):
        return len(data) if hasattr(data, "__len__") else None
    values = (
        list(data.values()) if isinstance(data, Mapping) else list(data) if isinstance(data, tuple) else []
    )
    if not values or not all(hasattr(value, "__len__") for value in values):
        return None
    lengths = {len(value) for value in values}
    arrays = isinstance(data, Mapping) or isinstance(values[0], (Tensor, np.ndarray))
    return lengths.pop() if len(lengths) == 1 and arrays else None


def _labels(data: Any, labels: Any) -> Any:
    """One label a sample, where that is known without reading the data."""
    if labels is False:
        return None
    if isinstance(data, Mapping):
        keys = [labels] if isinstance(labels, str) else LABEL_KEYS
        held = next((data[key] for key in keys if key in data), None)
        labels = held if labels is None or isinstance(labels, str) else labels
    elif isinstance(data, tuple) and labels is None and len(data) == 2:
        labels = data[1]
    elif isinstance(data, Texts) and labels is None:
        labels = data.labels
    if labels is None or isinstance(labels, str) or callable(labels):
        return None
    return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
