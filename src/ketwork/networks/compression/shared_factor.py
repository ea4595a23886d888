"""One first factor for several layers that read the same state: what an LSTM's projection is.

Layers i read states x with covariances C_i; M_i = H_i W_i. V holds the leading directions of what all outputs M_i x
depend on, under the mean covariance, each layer weighing by its own output's variance; each layer then gets the
regression of its output on V x. Where all C_i are one, that is the truncation of all outputs together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Metric, leading
from ketwork.networks.compression.reductions import Split


@dataclass(frozen=True)
class SharedReader:
    """A layer that reads the state: W (m, k), b, the moments of what it reads, and its metric."""

    weight: Tensor
    bias: Tensor
    inputs: Scatter
    metric: Metric


@dataclass(frozen=True)
class Shared:
    """The factors, all ranks: `first` (R, k) has nested rows, `splits` each reader's second; `errors[r]` is the sum."""

    first: Tensor
    splits: tuple[Split, ...]
    errors: Tensor

    def error(self, rank: int) -> float:
        """Σ E ‖H_i (W_i x − W_i′ V x)‖²."""
        return float(self.errors[rank])

    def cut(self, rank: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """V (r, k), and each reader's matrix (m, r) and bias."""
        parts = []
        for split in self.splits:
            (_, second), bias = split.cut(rank)
            parts.append((second, bias))
        return self.first[:rank], parts


def shared(readers: Sequence[SharedReader]) -> Shared:
    """The factors of layers that read one state. O(k³) for each.

    >>> x = Scatter.of(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]]).double())
    >>> weight = torch.ones(1, 2).double()
    >>> one = SharedReader(weight, torch.zeros(1).double(), x, Metric.none(weight))
    >>> bool(shared([one, one]).error(1) < 1e-6)
    True
    """
    total = sum(reader.inputs.n for reader in readers)
    covariance = sum(reader.inputs.covariance() * (reader.inputs.n / total) for reader in readers)
    assert isinstance(covariance, Tensor)
    stacked = []
    for reader in readers:
        weighted = reader.metric.times(reader.weight)
        own = float((weighted @ reader.inputs.covariance() * weighted).sum())
        common = float((weighted @ covariance * weighted).sum())
        stacked.append(weighted * (own / common) ** 0.5 if common > 0 else weighted)
    matrix = torch.cat(stacked)
    _, basis = leading(matrix, covariance)
    first = basis.T @ matrix
    order = torch.arange(first.shape[1], device=first.device)
    splits = tuple(
        Split.from_first(first, one.weight, one.bias, one.inputs, one.metric, order, 1) for one in readers
    )
    return Shared(first, splits, torch.stack([split.errors for split in splits]).sum(0))
