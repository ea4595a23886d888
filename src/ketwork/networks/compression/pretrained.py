"""Networks of transformers: a configuration that tells of the new sizes, where one can."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import nn

from ketwork.networks.compression.loader import UNSET, configured, transposed

_MOST = 6  # sizes of a configuration that are tried to be the ones


def configure(original: nn.Module, small: nn.Module) -> dict[str, int | bool]:
    """Lets `small.save_pretrained` write what transformers loads again, or refuse to; returns what is configured anew.

    A configuration has one width for all blocks, and none for factors. So the sizes that changed are set where each
    old one has one new one, and a network made from that has the shapes of the smaller one. Where layers gained a bias,
    as those do that read fewer units, the settings that give the network biases are set too; of the layers that these
    are for and that have none, zeros are written.
    """
    if not callable(getattr(small, "save_pretrained", None)) or not hasattr(small, "config"):
        return {}
    shapes = [_shapes(model) for model in (original, small)]
    turned = transposed(small, original)
    shapes[1] |= {name: shapes[1][name][::-1] for name in turned}
    if shapes[0] == shapes[1]:
        if not turned:
            return {}
        # Weights alone lie another way: a size as it is says that the configuration tells of them.
        stays = next(({n: v} for n, v in vars(original.config).items() if type(v) is int), {})
        configured(small, stays)
        return stays
    gained = shapes[1].keys() - shapes[0].keys()
    comparable = shapes[0].keys() <= shapes[1].keys() and all(name.endswith(".bias") for name in gained)
    result = _changes(original.config, *shapes) if comparable else {}
    flags = [name for name, value in vars(original.config).items() if value is False and "bias" in name]
    # A size of heads may also be that of the stream, which has not changed.
    some = (
        dict(part) | dict.fromkeys(biased, True)
        for m in range(bool(gained), len(flags[:_MOST]) + 1 if gained else 1)
        for biased in combinations(flags[:_MOST], m)
        for n in range(len(result), -1, -1)
        for part in combinations(list(result.items())[:_MOST], n)
        if part or biased
    )
    changes = next((part for part in some if comparable and _makes(small, part, shapes[1])), {})
    configured(small, changes)
    return changes


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _changes(
    config: Any, before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """The integers of a configuration that are sizes, or numbers of heads of one width, which have one new value.

    A size that it leaves to be computed (GPT-2's inner one) is that of the only new value of no other.
    """
    new: dict[int, set[int]] = {}
    for name, shape in before.items():
        for a, b in zip(shape, after[name], strict=True):
            if a != b:
                new.setdefault(a, set()).add(b)
    width = getattr(config, "head_dim", None) or 0
    result = {}
    rest = dict(new)
    for name, value in vars(config).items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        unit = width if "heads" in name else 1
        sizes = new.get(value * unit, set())
        rest.pop(value * unit, None)
        if unit and len(sizes) == 1 and (size := next(iter(sizes))) % unit == 0:
            result[name] = size // unit
    unset = [name for name in UNSET if getattr(config, name, 0) is None]
    if len(unset) == len(rest) == 1:
        result[unset[0]] = min(next(iter(rest.values())))
    return result


def _makes(small: Any, changes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a network made from the changed configuration has these shapes, but for biases that it has besides."""
    config = copy.deepcopy(small.config)
    for name, value in changes.items():
        setattr(config, name, value)
    try:
        with torch.device("meta"):
            made = _shapes(type(small)(config))
            besides = made.keys() - shapes.keys()
            return {**made, **shapes} == made and all(name.endswith(".bias") for name in besides)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
