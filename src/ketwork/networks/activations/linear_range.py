"""`LinearRange`: the few dimensions in which all outputs of a linear layer lie, where it has fewer inputs than outputs.

y = Wx + b is in the span of the columns of W and of b: k + 1 dimensions of d, whatever the inputs x.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from ketwork._lazy import cached_property
from ketwork.networks.activations.outputs import version_of

_SHARE = 0.5
"""Ranges of at most this share of the dimensions are worth it."""

_TRANSPOSED = ("transformers.pytorch_utils", "Conv1D")


@dataclass(frozen=True, eq=False)
class LinearRange:
    """The span of the columns of `weight` (d, k) and of `bias` (d,), at the `version` that they had."""

    weight: Tensor
    bias: Tensor | None
    version: tuple[float, ...]

    @classmethod
    def of(cls, module: nn.Module, output: Tensor) -> Self | None:
        """That of a module's outputs; None where they may be anything, or the range is not much smaller.

        Of plain `nn.Linear` and GPT-2's `Conv1D` in single or double precision: outputs that are rounded further leave
        the span.
        """
        kind = type(module)
        transposed = (kind.__module__, kind.__name__) == _TRANSPOSED
        if kind is not nn.Linear and not transposed:
            return None
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)
        assert bias is None or isinstance(bias, Tensor)
        if type(weight) not in (Tensor, nn.Parameter) or weight.is_inference():
            return None  # quantised, spread over processes, or one that may change unseen
        weight = weight.T if transposed else weight
        rank = weight.shape[1] + (bias is not None)
        exact = weight.dtype == output.dtype and weight.dtype in (torch.float32, torch.float64)
        if not exact or weight.device != output.device or rank > _SHARE * len(weight):
            return None
        parts = (weight,) if bias is None else (weight, bias)
        return cls(weight.detach(), None if bias is None else bias.detach(), tuple(map(version_of, parts)))

    def same(self, other: LinearRange) -> bool:
        """Whether the other is of the same numbers, in the same memory."""
        mine, theirs = ((each.weight.data_ptr(), each.version) for each in (self, other))
        return mine == theirs

    @property
    def rank(self) -> int:
        """The dimensions of the range, at most."""
        return self.weight.shape[1] + (self.bias is not None)

    @cached_property
    def states(self) -> Tensor:
        """Orthonormal states (r, d) that span it, in the layer's precision. Cost O(d r²), once."""
        columns = self.weight if self.bias is None else torch.cat([self.weight, self.bias[:, None]], dim=1)
        return torch.linalg.qr(columns.double())[0].T.to(self.weight.dtype).contiguous()


@dataclass
class LinearRanges:
    """The ranges of a network's layers by their paths, so that each is computed once."""

    _known: dict[str, LinearRange] = field(default_factory=dict)

    def of(self, path: str, module: nn.Module, output: Tensor) -> LinearRange | None:
        """That of a module's outputs; None where they may be anything, or the range is not much smaller."""
        span = LinearRange.of(module, output)
        if span is None:
            return None
        known = self._known.get(path)
        if known is None or not span.same(known):
            self._known[path] = known = span
        return known
