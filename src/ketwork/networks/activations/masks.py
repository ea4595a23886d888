"""Which positions of a batch exist, by masks that belong to the tensors that they came with.

A mask of an encoder says nothing of the decoder's positions, nor one of texts of an image's. A batch's masks are known
by their keys. Each belongs to the entries of its tower: those whose keys begin alike (`decoder_`, or nothing), of its
shape if there are such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Mask = str | Tensor | np.ndarray | Callable[[Any], Tensor] | None

IGNORED = -100
"""Samples or positions with this integer have no label (the convention of PyTorch's cross entropy)."""

KEY = "attention_mask"
GIVEN = "(given)"
"""The name of a mask that is no entry of the batch."""

_ENTRIES = ("input_ids", "inputs_embeds", "input_values", "input_features", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class PositionMask:
    """A mask (samples, positions), True where a position exists.

    `of_decoder` says that these are an encoder-decoder's second tower, `of_labels` that labels make its input.
    """

    name: str
    present: Tensor
    of_decoder: bool = False
    of_labels: bool = False


def masks_of(
    content: Any, mask: Mask, start: int, size: int, device: torch.device | str | None, targets: str | None
) -> tuple[PositionMask, ...]:
    """The masks of a batch that begins at sample `start`.

    `mask` is what the user gave: None takes each `…attention_mask` of the batch. `targets` is the key of labels that
    the network makes the decoder's input of: positions without a label are none.
    """
    if isinstance(mask, str):
        held = content.get(mask) if isinstance(content, Mapping) else None
        if held is None:
            names = (
                ", ".join(map(str, content))
                if isinstance(content, Mapping)
                else "no keys: it is not a mapping"
            )
            raise ValueError(
                f"Argument `mask` must name a key of each batch, but is {mask!r}; the batch has {names}."
            )
        named = {mask: as_mask(held, size)}
    elif callable(mask):
        named = {GIVEN: as_mask(mask(content), size)}
    elif mask is not None:
        named = {GIVEN: as_mask(torch.as_tensor(mask)[start : start + size].to(device), size)}
    elif isinstance(content, Mapping):
        # A mask between pairs of positions says nothing of single ones.
        named = {
            str(key): as_mask(value, size)
            for key, value in content.items()
            if str(key).endswith(KEY) and isinstance(value, Tensor) and value.ndim == 2 and len(value) == size
        }
    else:
        named = {}
    masks = [PositionMask(name, present, name.startswith("decoder_")) for name, present in named.items()]
    if targets is not None and not any(each.of_decoder for each in masks):
        labels = content[targets]
        if bool((labels == IGNORED).any()):
            masks.append(PositionMask(targets, labels != IGNORED, of_decoder=True, of_labels=True))
    return tuple(masks)


def as_mask(mask: Tensor, samples: int) -> Tensor:
    """A mask as booleans, (samples, positions); True where the position is real."""
    mask = mask if mask.dtype == torch.bool else mask != 0
    if mask.ndim != 2 or mask.shape[0] != samples:
        raise ValueError(
            f"Argument `mask` must have shape (samples, positions) with {samples} samples in this batch, "
            f"but has shape {tuple(mask.shape)}."
        )
    return mask


def towers(masks: Iterable[PositionMask], inputs: Mapping[str, Any]) -> dict[str | None, set[str]]:
    """The keys of a network's inputs by the mask that belongs to them; those that no mask belongs to under None.

    `inputs` are those that belong to samples. Nothing where a mask belongs to none of them.
    """
    groups: dict[str | None, set[str]] = {}
    for mask in masks:
        entries = (
            {*_entries(inputs, mask.name, mask.present)} & {*inputs} if not mask.of_labels else {mask.name}
        )
        if not entries:
            return {}
        groups[mask.name] = (entries | {mask.name}) & {*inputs}
    rest = {*inputs}.difference(*groups.values())
    return groups | ({None: rest} if rest else {})


def _entries(content: Mapping[str, Any], name: str, present: Tensor) -> list[str]:
    """The keys that a mask belongs to."""
    keys = [str(key) for key, value in content.items() if isinstance(value, Tensor) and key != name]
    tower = "" if name == GIVEN else _tower(name, [*keys, name])
    mine = [key for key in keys if _tower(key, [*keys, name]) == tower and not key.endswith(KEY)]
    shape = present.shape
    exact = [key for key in mine if content[key].shape == shape]
    return exact or [key for key in mine if content[key].shape[:2] == shape] or mine


def _tower(key: str, keys: list[str]) -> str:
    """What comes before the name that a key shares with other towers' entries, or before a mask's name."""
    for prefix in (each.removesuffix(KEY) for each in keys if each.endswith(f"_{KEY}")):
        if key.startswith(prefix):
            return prefix
    for base in (*_ENTRIES, KEY, *keys):
        if key.endswith(f"_{base}") and key != base:
            return key.removesuffix(base)
    return ""
