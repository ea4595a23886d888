"""Mixtures of experts: which modules send tokens to experts, and which tokens of a call go to which.

In transformers (from version 5) all experts of a block are one module with a weight of three axes, called with the
tokens (tokens, d), the experts that each one goes to (tokens, k) and their weights. `"*.experts:expert[3]"` is a row of
the vectors that expert 3 is given. Tokens keep their place there, so that each keeps its sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.outputs import Leaf, activations, leaves


def number_of_experts(module: nn.Module) -> int | None:
    """How many experts a module has, None if it is not called with tokens and the experts that these go to."""
    number = getattr(module, "num_experts", None)
    if not isinstance(number, int):
        return None
    stacked = any(p.ndim >= 3 and len(p) == number for p in module.parameters(recurse=False))
    return number if stacked else None


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
