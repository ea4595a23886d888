"""Labels as they come with batches, turned into what a layer's readouts need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ketwork.networks.activations.masks import IGNORED
from ketwork.records import Malformed

MOST_LABELS = 4096
"""A layer's sums grow with the number of labels (and of numbers a sample)."""

_FEW_NUMBERS = 32
"""Floats that are so many different whole numbers at most may be meant as classes."""

_TOO_MANY = f"Argument `labels` must have at most {MOST_LABELS} different labels"
_GROUP = "Group them, or give floating numbers for a regression."

Task = Literal["classes", "positions", "values"]


@dataclass(frozen=True)
class StoredLabels:
    """What batches have shown of their labels, as a file has it."""

    task: Task | None = None
    names: list[str | int | bool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self) -> None:
        """There are no more than a layer can have sums of."""
        if len(self.names) > MOST_LABELS:
            raise Malformed(f"labels cannot have {len(self.names)} names")


NEXT_TOKENS = (
    "The batches' labels are the tokens of `input_ids` themselves, as collators for language models make them: of each "
    "position the next token is taken for its label, and the last position has none."
)


def next_tokens(content: Any, labels: Any) -> Tensor | None:
    """The labels of a language model's batch, shifted so that each stands at the position that predicts it.

    Collators copy `input_ids` to `labels` and the network shifts them itself: the label at a position is the token
    there, which a layer need not predict. None where labels are something else.

    >>> batch = {"input_ids": torch.tensor([[5, 7, 9]]), "labels": torch.tensor([[-100, 7, 9]])}
    >>> next_tokens(batch, batch["labels"]).tolist()
    [[7, 9, -100]]
    """
    tokens = content.get("input_ids") if isinstance(content, Mapping) else None
    if not isinstance(tokens, Tensor) or not isinstance(labels, Tensor):
        return None
    if labels.ndim != 2 or labels.shape != tokens.shape or labels.is_floating_point():
        return None
    known = labels != IGNORED
    if not bool(known.any()) or not torch.equal(labels[known], tokens[known].to(labels)):
        return None
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


class Labels:
    """Reads the labels of a pass: one class a sample, one class a position, or numbers (regression).

    `given` is an array with one entry a sample of the whole data, a key of the batches, None for what the
    batches hold, or False for none. `names` lists the classes in order of first sight; a batch's codes index it.
    Of what batches hold by themselves, a network's targets of another kind (an image, token numbers of a large
    vocabulary) are no labels: then `notes` says so, and there are none.
    """

    Stored = StoredLabels

    def __init__(self, given: Any = None) -> None:
        self.given = given
        self.task: Task | None = None
        self.names: list[Any] = []
        self.notes: list[str] = []
        self.shifted = False  # those of the key that is given were tokens themselves
        self._numbers = 0
        self._few: set[float] | None = set()  # the whole numbers that all floats were so far
        self._committed = 0  # the names that batches which entered have shown
        self._codes: dict[Any, int] = {IGNORED: -1}

    def stored(self) -> StoredLabels:
        """What the batches that entered have shown, for a file."""
        return StoredLabels(self.task, self.names[: self._committed], list(self.notes))

    @classmethod
    def restored(cls, stored: StoredLabels) -> Labels:
        """The labels that `stored` gave, with nothing given for others to come."""
        labels = cls()
        labels.take(stored)
        return labels

    def take(self, stored: StoredLabels) -> None:
        """Takes over what other batches have shown."""
        self.task, self.names, self.notes = stored.task, list(stored.names), list(stored.notes)
        self._codes = {IGNORED: -1} | {name: code for code, name in enumerate(self.names)}
        self._committed = len(self.names)

    def commit(self) -> None:
        """The batch that was parsed last has entered: the names that it showed stay."""
        self._committed = len(self.names)

    def of_batch(self, content: Any, own: Any, start: int, size: int) -> Tensor | None:
        """The targets of one batch: codes (N,) or (N, T) with −1 for none, or numbers (N, m)."""
        labels = self._taken(content, own, start, size)
        if labels is None or self.notes:
            return None
        try:
            return self._targets(labels, start, size)
        except ValueError as error:
            if self.given is not None:
                raise
            # Nobody gave them as labels: the study continues without.
            self.notes.append(f"The batches' own labels are not used. {error}")
            self.task = None
            return None

    def _targets(self, labels: Any, start: int, size: int) -> Tensor:
        if isinstance(labels, Tensor):
            labels = labels.detach().cpu()
            labels = (labels.double() if labels.is_floating_point() else labels).numpy()
        array = np.asarray(labels)
        if array.ndim == 0 or len(array) != size:
            raise ValueError(
                f"Argument `labels` must have one entry a sample, but a batch of {size} samples has "
                f"{array.shape[0] if array.ndim else 'a single one'}."
            )
        if array.ndim == 2 and array.shape[1] == 1 and self.task != "positions":
            array = array[:, 0]
        if array.dtype.kind not in "biufOUS":
            raise ValueError(
                f"Argument `labels` must hold integers, strings, booleans or real numbers, but holds {array.dtype}."
            )
        if array.ndim > 2:
            raise ValueError(
                "Argument `labels` must have shape (samples,), (samples, positions) or, for numbers, (samples, "
                f"targets), but a batch of them has shape {array.shape}."
            )
        if array.dtype.kind == "f":
            return self._values(array, start)
        self._same_task("classes" if array.ndim == 1 else "positions")
        codes = [self._code(value, start) for value in array.reshape(-1).tolist()]
        return torch.tensor(codes, dtype=torch.long).reshape(array.shape)

    def _taken(self, content: Any, own: Any, start: int, size: int) -> Any:
        if self.given is None:
            return own
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
            shifted = next_tokens(content, content[self.given])
            self.shifted = shifted is not None
            return content[self.given] if shifted is None else shifted
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

    def remarks(self) -> list[str]:
        """What a reader should know of labels that were read to their end."""
        if self.task != "values" or not self._few:
            return []
        how = "`labels.argmax(1)`" if self._numbers > 1 else "`labels.astype(int)`, or integers in the table"
        return [
            f"The labels are floats, {len(self._few)} different whole numbers, and so are decoded as numbers, by "
            f"regression. If they are classes, give them as integers: {how}."
        ]

    @property
    def classes(self) -> int | None:
        """How many labels there are, as far as is known; numbers a sample; None without labels."""
        if self.task is None:
            return None
        per_sample = self.task == "classes" and isinstance(self.given, (Tensor, np.ndarray, Sequence))
        if per_sample and not isinstance(self.given, str):
            return len(pd.unique(np.asarray(self.given).reshape(-1)))
        return max(len(self.names), self._numbers)

    def joined(self, other: Labels) -> Tensor:
        """Takes in the names of other labels; gives the code here of each of their codes, (K,).

        Raises:
            ValueError: they are of another kind, or too many together.
        """
        if other.task is not None:
            self._same_task(other.task)
        self.notes += [note for note in other.notes if note not in self.notes]
        codes = torch.tensor([self._code(name, 0) for name in other.names], dtype=torch.long)
        self.commit()
        return codes

    def given_to(self, start: int, size: int) -> Any:
        """What was given for these samples beside the batches: a part of an array, or None."""
        return np.asarray(self.given)[start : start + size] if self._per_sample else None

    @property
    def _per_sample(self) -> bool:
        return not (self.given is None or self.given is False or isinstance(self.given, str))

    def check_length(self, samples: int, limited: bool) -> None:
        """Refuses labels left over at the end of the data, which would mean that they belong to other data."""
        if self._per_sample and not limited and len(self.given) != samples:
            raise ValueError(
                f"Argument `labels` must have one entry a sample, but has {len(self.given)} for {samples} samples."
            )

    def check_names(self, samples: int | None) -> None:
        """Refuses labels beside the data of which the first so many (None: all) are too many different ones."""
        array = np.asarray(self.given) if self._per_sample else np.empty(0)
        if array.ndim not in (1, 2) or array.dtype.kind not in "biuOUS":
            return
        array = array[:samples].reshape(-1)
        with suppress(TypeError):  # what cannot be hashed is no label, as its batch will say
            names = len(set(array.tolist()) - {IGNORED})
            if names > MOST_LABELS:
                raise ValueError(f"{_TOO_MANY}, but holds {names}. {_GROUP}")

    def _values(self, array: np.ndarray, start: int) -> Tensor:
        self._same_task("values")
        array = array.reshape(len(array), -1)
        if array.shape[1] > MOST_LABELS:
            raise ValueError(
                f"Argument `labels` must have at most {MOST_LABELS} numbers a sample, but has {array.shape[1]}."
            )
        bad = ~np.isfinite(array).all(axis=1)
        if bad.any():
            raise ValueError(
                f"Argument `labels` must be finite, but the label of sample {start + int(bad.argmax())} is NaN or "
                "infinite. Remove such samples."
            )
        self._numbers = array.shape[1]
        if self._few is not None:
            self._few.update(np.unique(array).tolist())
            if len(self._few) > _FEW_NUMBERS or any(value % 1 for value in self._few):
                self._few = None
        return torch.from_numpy(array.astype(np.float64))

    def _code(self, value: Any, start: int) -> int:
        if value not in self._codes:
            if pd.isna(value):
                raise ValueError(
                    f"Argument `labels` must be complete, but a label among the samples from {start} on is missing "
                    f"({value}). Remove such samples, or give integers with {IGNORED} there."
                )
            if not isinstance(value, (int, str)):
                raise ValueError(
                    "Argument `labels` must hold integers, strings, booleans or real numbers, but holds "
                    f"{value!r} ({type(value).__name__})."
                )
            if len(self.names) == MOST_LABELS:
                raise ValueError(f"{_TOO_MANY}. {_GROUP}")
            self._codes[value] = len(self.names)
            self.names.append(value)
        return self._codes[value]

    def _same_task(self, task: Task) -> None:
        if self.task not in (None, task):
            raise ValueError(f"Argument `labels` must be of one kind, but holds both {self.task} and {task}.")
        self.task = task
