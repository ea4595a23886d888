"""Texts through a tokenizer: padded batches with their mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork.sources.batches import to_tensor


@dataclass(frozen=True)
class TextBatches:
    """Batches of tokenised texts: `input_ids`, `attention_mask` (batch, longest), and `labels` where given.

    Each batch is padded to its own longest text and cut at the longest input that the tokenizer allows.
    """

    texts: Sequence[str]
    labels: np.ndarray | None
    tokenizer: Any
    batch_size: int

    def at(self, places: np.ndarray) -> TextBatches:
        """Batches of the texts at these places."""
        labels = None if self.labels is None else self.labels[places]
        return replace(self, texts=[self.texts[i] for i in places], labels=labels)

    def __len__(self) -> int:
        return -(-len(self.texts) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(self.texts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = dict(
                self.tokenizer(list(self.texts[rows]), padding=True, truncation=True, return_tensors="pt")
            )
            if self.labels is not None:
                batch["labels"] = to_tensor(self.labels[rows], torch.float32)
            yield batch
