"""Labels as they come with batches, turned into what a layer's readouts need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

IGNORED = -100
"""Positions with this label have none (the convention of PyTorch's cross entropy)."""

Task = Literal["classes", "positions", "values"]


@dataclass
class Labels:
    """Reads the labels of a pass: one class a sample, one class a position, or numbers (regression).

    `given` is an array with one entry a sample of the whole data, a key of the batches, None for what the
    batches hold, or False for none. `names` lists the classes in order of first sight; a batch's codes index it.
    """

    given: Any = None
    task: Task | None = None
    names: list[Any] = field(default_factory=list)
    _codes: dict[Any, int] = field(default_factory=dict)

    def of(self, content: Any, found: Any, start: int, size: int) -> Tensor | None:
        """The targets of one batch: codes (N,) or (N, T) with −1 for none, or numbers (N, m)."""
        labels = self._taken(content, found, start, size)
        if labels is None:
            return None
        array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if array.ndim == 0 or len(array) != size:
            raise ValueError(
                f"Argument `labels` must have one entry a sample, but a batch of {size} samples has "
                f"{array.shape[0] if array.ndim else 'a single number'}."
            )
        if np.issubdtype(array.dtype, np.floating):
            return self._values(array, start)
        if array.ndim > 2:
            raise ValueError(
                "Argument `labels` must have shape (samples,), (samples, positions) or, for numbers, "
                f"(samples, targets), but a batch of them has shape {array.shape}."
            )
        self._same_task("classes" if array.ndim == 1 else "positions")
        codes = [self._code(value) for value in array.reshape(-1).tolist()]
        return torch.tensor(codes, dtype=torch.long).reshape(array.shape)

    def _taken(self, content: Any, found: Any, start: int, size: int) -> Any:
        if self.given is None:
            return found
        if self.given is False:
            return None
        if isinstance(self.given, str):
            if not isinstance(content, Mapping) or self.given not in content:
                held = (
                    ", ".join(map(str, content))
                    if isinstance(content, Mapping)
                    else "no keys: it is no mapping"
                )
                raise ValueError(
                    f"Argument `labels` must name a key of each batch, but is {self.given!r}; the batch has {held}."
                )
            return content[self.given]
        if not isinstance(self.given, (Tensor, np.ndarray, Sequence)) and not hasattr(
            self.given, "__array__"
        ):
            raise TypeError(
                "Argument `labels` must be an array with one entry a sample, a key of the batches, None or False, "
                f"but is a {type(self.given).__name__}."
            )
        if len(self.given) < start + size:
            raise ValueError(
                f"Argument `labels` must have one entry a sample, but has {len(self.given)} for at least "
                f"{start + size} samples."
            )
        return np.asarray(self.given)[start : start + size]

    def check_length(self, samples: int, limited: bool) -> None:
        """Refuses labels left over at the end of the data, which would mean that they belong to other data."""
        whole = not (self.given is None or self.given is False or isinstance(self.given, str))
        if whole and not limited and len(self.given) != samples:
            raise ValueError(
                f"Argument `labels` must have one entry a sample, but has {len(self.given)} for {samples} samples."
            )

    def _values(self, array: np.ndarray, start: int) -> Tensor:
        self._same_task("values")
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"Argument `labels` must be finite, but the label of sample {start + int(bad.argmax())} is NaN or "
                "infinite. Leave such samples out."
            )
        return torch.from_numpy(array.reshape(len(array), -1)).double()

    def _code(self, value: Any) -> int:
        if value == IGNORED and self.task == "positions":
            return -1
        if value not in self._codes:
            self._codes[value] = len(self.names)
            self.names.append(value)
        return self._codes[value]

    def _same_task(self, task: Task) -> None:
        if self.task not in (None, task):
            raise ValueError(f"Argument `labels` must be of one kind, but holds both {self.task} and {task}.")
        self.task = task
