"""Texts as data: what a tokenizer makes of them, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset


class Texts(Dataset[Any]):
    """Texts, and labels where there are any, of which each batch is what the tokenizer makes of it.

    A batch has `input_ids`, `attention_mask` (batch, longest) and whatever else the tokenizer gives, padded to its own
    longest text and cut at the longest input that the tokenizer allows; and `labels`, where given.
    """

    def __init__(self, texts: Sequence[str], labels: Any, tokenizer: Any) -> None:
        self.texts, self.labels, self.tokenizer = list(texts), labels, tokenizer

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, place: int) -> int:
        return place

    def at(self, places: np.ndarray) -> Texts:
        """The texts at these places."""
        labels = None if self.labels is None else self.labels[places]
        return Texts([self.texts[i] for i in places], labels, self.tokenizer)

    def collate(self, places: list[int]) -> dict[str, Any]:
        """The batch of the texts at these places."""
        texts = [self.texts[i] for i in places]
        batch = dict(self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
        if self.labels is not None:
            labels = self.labels[places]
            batch["labels"] = torch.from_numpy(labels) if labels.dtype.kind in "iufb" else labels.tolist()
        return batch


def tokenized(data: Any, tokenizer: Any) -> Any:
    """The data, texts as batches of tokens where there is a tokenizer; the columns of a DataFrame are features.

    With a tokenizer `data` is a list (or pandas column, or array) of texts, or a pair of it and as many labels.

    Raises:
        TypeError: they are no texts, or a DataFrame has columns of no numbers.
        ValueError: there are none, the labels are not as many, or the tokenizer cannot pad.
    """
    if tokenizer is None:
        return _without_frames(data)
    texts, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    texts = list(texts) if not isinstance(texts, str | bytes | dict) and hasattr(texts, "__iter__") else texts
    other = (
        next((text for text in texts if not isinstance(text, str)), None)
        if isinstance(texts, list)
        else texts
    )
    if other is not None:
        raise TypeError(
            "Argument `data` must be a list of texts, or a pair of it and labels, where there is a `tokenizer`, but "
            f"has {type(other).__name__}. Leave `tokenizer` out for tokens that are there already."
        )
    if not texts:
        raise ValueError("Argument `data` must hold at least one text, but is empty.")
    if labels is not None:
        labels = labels.numpy(force=True) if isinstance(labels, Tensor) else np.array(labels)
        if len(labels) != len(texts):
            raise ValueError(
                f"Argument `data` must have one label a text, but has {len(labels)} for {len(texts)} texts."
            )
    if getattr(tokenizer, "pad_token", "") is None:
        raise ValueError(
            "Argument `tokenizer` must be able to pad texts to one length, but has no padding token. Give it one: "
            "`tokenizer.pad_token = tokenizer.eos_token`."
        )
    return Texts(texts, labels, tokenizer)


def _without_frames(data: Any) -> Any:
    """The data, a DataFrame (alone or with labels) as an array with one row a sample."""
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], pd.DataFrame):
        return _without_frames(data[0]), data[1]
    if not isinstance(data, pd.DataFrame):
        return data
    other = [str(name) for name, column in data.items() if not pd.api.types.is_numeric_dtype(column)]
    if other:
        raise TypeError(
            f"Argument `data` must be a DataFrame of numbers alone, but has the columns {', '.join(other[:6])}. Choose "
            "columns, `data[[…]]`, and give labels beside them, `(data[[…]], data[name])`."
        )
    return data.to_numpy(dtype=np.float64)
