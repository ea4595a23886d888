"""`ChosenPositions`: which positions of each sample are read, as the user chose them.

They are chosen among those that exist (`mask`): the first is the first token after padding on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork.networks.activations.batching import LABEL_KEYS, Batch
from ketwork.networks.activations.info import Activation
from ketwork.networks.activations.masks import IGNORED, as_mask
from ketwork.networks.activations.sinks import are_sinks

PositionChoice = str | slice | Tensor | np.ndarray | Callable[[Any], Tensor]

_SLICES = {"first": slice(None, 1), "last": slice(-1, None)}
_OF_LABELS = ("prompt", "answer")
_WORDS = ("all", "no-sinks", *_SLICES, *_OF_LABELS)


@dataclass
class ChosenPositions:
    """The positions of a study. `mask` (samples, positions) are those of the batch, where the batch says which."""

    positions: PositionChoice = "all"
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        given = self.positions
        arrays = (slice, Tensor, np.ndarray)
        if not isinstance(given, (str, *arrays)) and not callable(given):
            raise TypeError(
                f"Argument `positions` must be one of {', '.join(map(repr, _WORDS))}, the key of a mask, a slice, a "
                f"mask (samples, positions), or a callable batch -> mask, but is a {type(given).__name__}."
            )

    @property
    def words(self) -> str:
        """What was given, as records have it."""
        given = self.positions
        if isinstance(given, str):
            return given
        if isinstance(given, slice):
            parts = (given.start, given.stop, *(() if given.step is None else (given.step,)))
            return ":".join("" if part is None else str(part) for part in parts)
        return "a function" if callable(given) else "a mask"

    def at(self, places: np.ndarray | None) -> ChosenPositions:
        """The same for the samples at these places of the data; None: all of them."""
        given = self.positions
        if places is None or not isinstance(given, (Tensor, np.ndarray)):
            return self
        return ChosenPositions(torch.as_tensor(given)[torch.from_numpy(places)])

    def begin(self, batch: Batch, start: int) -> None:
        """A new batch, whose first sample is number `start` of the data."""
        given = self.positions
        self.mask = None
        if isinstance(given, str) and given in _OF_LABELS:
            labels = _labels(batch)
            self.mask = (labels == IGNORED) == (given == "prompt")
        elif isinstance(given, str) and given not in _WORDS:
            held = batch.content.get(given) if isinstance(batch.content, Mapping) else None
            if held is None:
                names = (
                    ", ".join(map(str, batch.content)) if isinstance(batch.content, Mapping) else "no keys"
                )
                raise ValueError(
                    f"Argument `positions` must be one of {', '.join(map(repr, _WORDS))}, or a key of each batch, but "
                    f"is {given!r}; the batch has {names}."
                )
            self.mask = _mask(held, batch.size)
        elif isinstance(given, (Tensor, np.ndarray)):
            self.mask = _mask(torch.as_tensor(given)[start : start + batch.size], batch.size)
        elif callable(given):
            self.mask = _mask(given(batch.content), batch.size)

    def of(self, activation: Activation, present: Tensor | None) -> Tensor | None:
        """The chosen ones of a layer's existing positions, (samples, positions); None: all.

        Raises:
            ValueError: a mask is of other positions.
        """
        given = self.positions
        if not activation.info.positions or (isinstance(given, str) and given == "all"):
            return present
        values = activation.values
        there = (
            torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
            if present is None
            else present
        )
        if self.mask is not None:
            if self.mask.shape != there.shape:
                raise ValueError(
                    f"Argument `positions` must choose among the positions of each layer, but is of shape "
                    f"{tuple(self.mask.shape)} where layer {activation.info.name!r} has {tuple(there.shape)} samples × "
                    "positions. Name layers with such positions in `layers`."
                )
            return there & self.mask.to(there.device)
        if isinstance(given, str) and given == "no-sinks":
            squares = torch.linalg.vector_norm(values, dim=2).double().square()
            return there & ~are_sinks(torch.where(there, squares, torch.nan))
        which = _SLICES[given] if isinstance(given, str) else given
        assert isinstance(which, slice)
        return _sliced(there, which)


def _sliced(there: Tensor, which: slice) -> Tensor:
    """Some of the positions that each sample has, by their order among these."""
    place = there.long().cumsum(dim=1) - 1
    chosen = torch.zeros_like(there)
    counts = there.sum(dim=1)
    for count in counts.unique().tolist():
        wanted = torch.zeros(there.shape[1], dtype=torch.bool, device=there.device)
        wanted[list(range(*which.indices(count)))] = True
        rows = counts == count
        chosen[rows] = there[rows] & wanted[place[rows].clamp(min=0)]
    return chosen


def _mask(mask: Any, samples: int) -> Tensor:
    try:
        return as_mask(torch.as_tensor(mask), samples)
    except ValueError as error:
        raise ValueError(str(error).replace("`mask`", "`positions`")) from error


def _labels(batch: Batch) -> Tensor:
    """The labels of the batch's positions, as they came.

    Raises:
        ValueError: it has none, or none is ignored.
    """
    content = batch.content
    labels = (
        next((content[key] for key in LABEL_KEYS if key in content), None)
        if isinstance(content, Mapping)
        else None
    )
    if not isinstance(labels, Tensor) or labels.ndim != 2 or len(labels) != batch.size:
        raise ValueError(
            "Argument `positions` can be 'prompt' or 'answer' where batches are mappings with `labels` (samples, "
            f"positions) that are {IGNORED} at the prompt's. Give a mask, or the key of one, otherwise."
        )
    return labels
