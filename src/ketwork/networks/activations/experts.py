"""Mixtures of experts: which modules send tokens to experts, and which tokens of a call go to which.

In transformers (from version 5) all experts of a block are one module with a weight of three axes, called with the
tokens (tokens, d), the experts that each one goes to (tokens, k) and their weights. `"*.experts:expert[3]"` is a row of
the vectors that expert 3 is given. Tokens keep their place there, so that each keeps its sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.naming import SelectorError
from ketwork.networks.activations.outputs import Leaf, activations, leaves
from ketwork.networks.activations.spots import Spot


def number_of_experts(module: nn.Module) -> int | None:
    """How many experts a module has, None if it is not called with tokens and the experts that these go to."""
    number = getattr(module, "num_experts", None)
    if not isinstance(number, int):
        return None
    stacked = any(p.ndim >= 3 and len(p) == number for p in module.parameters(recurse=False))
    return number if stacked else None


def expert_spots(path: str, module: nn.Module, spot: Spot) -> list[Spot]:
    """The rows of a module's experts that a selector chose: all of them where it names no number.

    Raises:
        SelectorError: the module has no experts, or not that one.
    """
    number = number_of_experts(module)
    if number is None:
        raise SelectorError(
            f"Argument `layers` must name modules with experts before `:expert`, but {path!r} "
            f"({type(module).__name__}) is not called with tokens and the experts that these go to."
        )
    places = [f"[{i}]" for i in range(number)] if not spot.place else [spot.place]
    if not re.fullmatch(r"\[\d+\]", places[0]) or int(places[-1][1:-1]) >= number:
        raise SelectorError(
            f"Argument `layers` must name an expert of {path!r} by a number below {number}, but names {places[0]}."
        )
    return [replace(spot, path=path, place=place) for place in places]


def routed(tree: Any) -> tuple[Leaf, Tensor] | None:
    """The tokens that a module is called with and the experts that each goes to (tokens, k); None of other calls."""
    given = next(activations(tree), None)
    if given is None or given.tensor.ndim < 2:
        return None
    return next(
        ((given, index) for index in _indices(tree) if index.shape[:-1] == given.tensor.shape[:-1]), None
    )


def goes_to(index: Tensor, expert: int) -> Tensor:
    """1 for each token that goes to an expert, 0 for others, (tokens, 1), from the experts (tokens, k) of each."""
    return (index == expert).any(dim=-1, keepdim=True).float()


def _indices(tree: Any) -> Iterable[Tensor]:
    for _, value in leaves(tree):
        if isinstance(value, Tensor) and value.dtype in (torch.int32, torch.int64) and value.ndim >= 2:
            yield value
