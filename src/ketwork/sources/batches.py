"""What a data source gives: batches that can be gone through again, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from ketwork._draws import choose
from ketwork.sources.errors import SourceError


@dataclass(frozen=True)
class LoadedData:
    """Batches, to be iterated any number of times.

    A batch is a tensor, a pair `(x, labels)`, or a mapping with `input_ids`, `attention_mask` and, where
    there are labels, `labels`. `samples` and `labelled` are None where a factory does not tell.
    """

    batches: Iterable[Any]
    samples: int | None
    labelled: bool | None
    label_names: tuple[str, ...] | None
    description: dict[str, Any]
    notes: tuple[str, ...] = ()
    taken: str | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What a result's settings should say of the draw."""
        return {} if self.taken is None else {"taken": self.taken}

    @property
    def integers(self) -> str | None:
        """The dtype of features that are integers, where the data are an array of them."""
        features = self.batches.features if isinstance(self.batches, ArrayBatches) else None
        return str(features.dtype) if features is not None and features.dtype.kind in "iu" else None

    def as_floats(self) -> LoadedData:
        """Images of 8 bits as floats in [0, 1], divided by 255, as a note says; for networks that refuse integers.

        Raises:
            SourceError: integers of another kind, of which no one knows how the network was trained on them.
        """
        batches = self.batches
        assert isinstance(batches, ArrayBatches)
        if batches.features.dtype != np.uint8 or batches.features.ndim < 3:
            raise SourceError(
                "Argument `data` must hold floating numbers for a network that takes them, but its array has dtype "
                f"{self.integers} and shape {batches.features.shape}. Save it as in the network's training, by "
                "`x.astype('float32')` and the same scale. (Images, uint8 with three axes or more, are divided by 255.)"
            )
        return replace(
            self,
            batches=replace(batches, divisor=255),
            description=self.description | {"divisor": 255},
            notes=(
                *self.notes,
                "The images of 8 bits (uint8) were divided by 255: the network got floats in [0, 1].",
            ),
        )

    def limit(self, most: int | None) -> int | None:
        """How many samples whoever reads the batches must stop after; None where no more are there."""
        return None if most is None or (self.samples is not None and self.samples <= most) else most

    def drawn(self, most: int | None, seed: int) -> LoadedData:
        """So many of the samples at most, as many of each label where there are labels; `taken` says which."""
        batches = self.batches
        if (
            most is None
            or not isinstance(batches, Selectable)
            or self.samples is None
            or self.samples <= most
        ):
            return self
        places, words = choose(self.samples, most, batches.labels, seed)
        return replace(self, batches=batches.at(places), samples=most, taken=words)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


@runtime_checkable
class Selectable(Protocol):
    """Batches of samples that can be taken in any order."""

    labels: Any

    def at(self, places: np.ndarray) -> Iterable[Any]:
        """Batches of the samples at these places."""


@dataclass(frozen=True)
class ArrayBatches:
    """Batches of an array, and of the labels beside it: tensors, or pairs of tensors.

    Floating values take `dtype` (complex ones its complex partner), integers become int64, or `dtype` after they were
    divided by `divisor`. Each batch is a
    copy, so that an array on disk is read one batch at a time and a network may write into its input.
    """

    features: np.ndarray  # (N, *shape)
    labels: np.ndarray | None  # (N, *)
    batch_size: int
    dtype: torch.dtype
    divisor: int | None = None

    def at(self, places: np.ndarray) -> ArrayBatches:
        """Batches of the samples at these places."""
        labels = None if self.labels is None else self.labels[places]
        return replace(self, features=self.features[places], labels=labels)

    def __len__(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        for start in range(0, len(self.features), self.batch_size):
            rows = slice(start, start + self.batch_size)
            x = to_tensor(self.features[rows], self.dtype)
            if self.divisor is not None:
                x = x.to(self.dtype) / self.divisor
            yield x if self.labels is None else (x, to_tensor(self.labels[rows], torch.float32))


@dataclass(frozen=True)
class DatasetBatches:
    """Batches of a dataset whose samples can be taken in any order; their labels are not known beforehand."""

    dataset: Dataset[Any]
    batch_size: int
    labels: None = None

    def at(self, places: np.ndarray) -> DatasetBatches:
        """Batches of the samples at these places."""
        return replace(self, dataset=Subset(self.dataset, places.tolist()))

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(self.dataset, batch_size=self.batch_size))


def to_tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """A copy as a tensor: floats and booleans in `dtype`, complex in its partner, integers in int64."""
    if values.dtype.kind in "iu":
        return torch.from_numpy(values.astype(np.int64))
    if values.dtype.kind == "b":
        return torch.from_numpy(values.copy()).to(dtype)
    native = values.astype(values.dtype.newbyteorder("="))
    return torch.from_numpy(native).to(dtype.to_complex() if native.dtype.kind == "c" else dtype)


def check_features(values: np.ndarray, name: str, argument: str) -> np.ndarray:
    """`values` where they are an N × … array of numbers with something in it; else `SourceError`."""
    if values.dtype.kind not in "biufc":
        raise SourceError(
            f"Argument `{argument}` must name numbers, but {name} is of dtype {values.dtype}. "
            "Encode them as numbers, or give texts in a table with `text`."
        )
    if values.ndim < 2:
        raise SourceError(
            f"Argument `{argument}` must name an array with samples along its first axis and features along "
            f"others, but {name} has shape {values.shape}."
        )
    if values.size == 0:
        raise SourceError(
            f"Argument `{argument}` must hold at least one sample, but {name} has shape {values.shape}."
        )
    return values


def check_positive(argument: str, value: int | None) -> None:
    """Raises `SourceError` unless `value` is None or at least 1."""
    if value is not None and value < 1:
        raise SourceError(f"Argument `{argument}` must be at least 1, but was {value}.")
