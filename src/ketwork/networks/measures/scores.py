"""How well scores (n, K) tell labels (n,): accuracy, balanced accuracy, AUC and R², with standard errors.

Standard errors come from each row's first-order share in the number, summed over the rows of each sample
(`samples` (n,) says which rows belong together; None: each row is a sample), since positions of one sample
are not independent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ketwork.quantum import Estimate


def accuracy(scores: Tensor, codes: Tensor, samples: Tensor | None = None) -> Estimate:
    """Share of rows whose largest score stands at their label."""
    n = len(codes)
    if n == 0:
        return Estimate(math.nan)
    right = (scores.argmax(dim=1) == codes).double()
    return _estimate(right.mean(), (right - right.mean()) / n, samples)


def balanced_accuracy(scores: Tensor, codes: Tensor, samples: Tensor | None = None) -> Estimate:
    """Mean over the labels present of the share of their rows that is classified correctly.

    A single row of a label says nothing of its spread: it counts with that around the mean of all labels.
    """
    if len(codes) == 0:
        return Estimate(math.nan)
    right = (scores.argmax(dim=1) == codes).double()
    _, places, counts = codes.unique(return_inverse=True, return_counts=True)
    recall = torch.zeros_like(counts, dtype=torch.float64).index_add(0, places, right) / counts
    around = torch.where(counts > 1, recall, recall.mean())
    shares = (right - around[places]) / counts[places] / len(counts)
    return _estimate(recall.mean(), shares, samples)


def macro_auc(scores: Tensor, codes: Tensor, samples: Tensor | None = None) -> Estimate:
    """Area under the ROC curve, each label against the rest, averaged over the labels present; ties count half.

    For two labels the score is the difference of both, and the number is the usual AUC. Standard error by
    DeLong's structural components (DeLong et al. 1988). Cost O(K n log n).
    """
    n, k = scores.shape
    present, counts = codes.unique(return_counts=True)
    if len(present) < 2:
        return Estimate(math.nan)
    if k == 2:
        scores, present, counts = (scores - scores.flip(1))[:, 1:], present[1:], counts[1:]
    else:
        scores = scores[:, present]
    values = scores.T.contiguous()  # (labels, n)
    mine = codes == present[:, None]
    ordered, order = values.sort(dim=1)
    left = torch.searchsorted(ordered, values)
    right = torch.searchsorted(ordered, values, right=True)
    ranked = torch.nn.functional.pad(mine.gather(1, order).cumsum(dim=1), (1, 0))
    below = (ranked.gather(1, left) + ranked.gather(1, right)).double() / 2  # rows of the label, ties half
    others = (left + right).double() / 2 - below
    m, rest = counts[:, None], n - counts[:, None]
    # Of a row of the label, the share of the others that it beats; of another, the share of it that beats it.
    beats = torch.where(mine, others / rest, 1 - below / m)
    areas = torch.where(mine, beats, 0.0).sum(dim=1, keepdim=True) / m
    shares = ((beats - areas) / torch.where(mine, m, rest)).mean(dim=0)
    return _estimate(areas.mean(), shares, samples)


MEASURES = {"accuracy": accuracy, "balanced": balanced_accuracy, "auc": macro_auc}
"""Of labels that are classes, by the name in a study's columns."""


def r_squared(predicted: Tensor, targets: Tensor, samples: Tensor | None = None) -> Estimate:
    """1 − Σ(y − ŷ)²/Σ(y − ȳ)² over all targets; standard error by the delta method."""
    if len(targets) < 2:
        return Estimate(math.nan)
    residual = (targets - predicted).square().sum(dim=1)
    spread = (targets - targets.mean(dim=0)).square().sum(dim=1)
    total = spread.sum()
    if float(total) == 0:
        return Estimate(math.nan)
    ratio = residual.sum() / total
    return _estimate(1 - ratio, (residual - ratio * spread) / total, samples)


def confusion(scores: Tensor, codes: Tensor) -> Tensor:
    """Counts (K, K): row the label, column the label read."""
    k = scores.shape[1]
    return torch.bincount(codes * k + scores.argmax(dim=1), minlength=k * k).reshape(k, k)


def _estimate(value: Tensor, shares: Tensor, samples: Tensor | None) -> Estimate:
    if samples is not None:
        _, places = samples.unique(return_inverse=True)
        shares = shares.new_zeros(int(places.max()) + 1).index_add(0, places, shares)
    return Estimate(float(value), float(shares.square().sum().sqrt()))
