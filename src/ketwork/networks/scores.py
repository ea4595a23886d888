"""How well scores (n, K) tell labels (n,): accuracy, balanced accuracy, AUC and R², with standard errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ketwork.networks.readings import Estimate


def accuracy(scores: Tensor, codes: Tensor) -> Estimate:
    """Share of samples whose largest score stands at their label; binomial standard error."""
    n = len(codes)
    if n == 0:
        return Estimate(math.nan)
    p = float((scores.argmax(dim=1) == codes).double().mean())
    return Estimate(p, math.sqrt(p * (1 - p) / n))


def balanced_accuracy(scores: Tensor, codes: Tensor) -> Estimate:
    """Mean over the labels present of the share of their samples that is read rightly."""
    right = (scores.argmax(dim=1) == codes).double()
    counts = torch.bincount(codes, minlength=scores.shape[1]).double()
    present = counts > 0
    if not bool(present.any()):
        return Estimate(math.nan)
    recall = torch.bincount(codes, weights=right, minlength=scores.shape[1])[present] / counts[present]
    error = float((recall * (1 - recall) / counts[present]).sum().sqrt()) / int(present.sum())
    return Estimate(float(recall.mean()), error)


def macro_auc(scores: Tensor, codes: Tensor) -> Estimate:
    """Area under the ROC curve, each label against the rest, averaged over labels; ties count half.

    For two labels the score is the difference of both, and the number is the usual AUC. Standard error by
    DeLong's structural components (DeLong et al. 1988), per sample, summed over labels.
    """
    n, k = scores.shape
    if k == 2:
        scores = scores - scores.flip(1)
    areas, influence = [], torch.zeros(n, dtype=torch.float64, device=scores.device)
    for code in codes.unique().tolist():
        mine = codes == code
        m, rest = int(mine.sum()), n - int(mine.sum())
        if rest == 0:
            continue
        ranks = _ranks(scores[:, code].double())
        inside = torch.empty(n, dtype=torch.float64, device=scores.device)
        inside[mine] = _ranks(scores[mine, code].double())
        inside[~mine] = _ranks(scores[~mine, code].double())
        # The share of the others that a sample beats (or, among the others, that beats it).
        beats = torch.where(mine, (ranks - inside) / rest, 1 - (ranks - inside) / m)
        area = float(beats[mine].mean())
        areas.append(area)
        influence += torch.where(mine, (beats - area) / m, (beats - area) / rest)
    if not areas:
        return Estimate(math.nan)
    return Estimate(sum(areas) / len(areas), float(influence.square().sum().sqrt()) / len(areas))


def r_squared(predicted: Tensor, targets: Tensor) -> Estimate:
    """1 − Σ(y − ŷ)²/Σ(y − ȳ)² over all targets; standard error by the delta method."""
    n = len(targets)
    residual = (targets - predicted).square().sum(dim=1)
    spread = (targets - targets.mean(dim=0)).square().sum(dim=1) if n else residual
    if n < 2 or float(spread.sum()) == 0:
        return Estimate(math.nan)
    ratio = float(residual.sum() / spread.sum())
    error = float((residual - ratio * spread).square().sum().sqrt() / spread.sum())
    return Estimate(1 - ratio, error)


def confusion(scores: Tensor, codes: Tensor) -> Tensor:
    """Counts (K, K): row the label, column the label read."""
    k = scores.shape[1]
    return torch.bincount(codes * k + scores.argmax(dim=1), minlength=k * k).reshape(k, k)


def _ranks(x: Tensor) -> Tensor:
    """Ranks from 1, ties by their mean."""
    _, inverse, counts = x.unique(sorted=True, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts.double() - 1) / 2)[inverse]
