"""How well scores (n, K) tell labels (n,): accuracy, balanced accuracy, AUC and R², with standard errors.

Rows of one sample belong together (`samples` (n,) says which; None: each row is a sample), since positions of one
sample are not independent. Scores that differ by rounding alone are ties: such a row is read as the first of the labels
that share its largest score, and a tie counts half in the AUC.

The error of a share is that of Wilson's interval: 1.96 standard errors reach its farther end, so that a score of 100 %
on n rows has an error of 1.96/(n + 3.84), not 0. The error of an AUC is that of DeLong et al. (1988), in a score
interval of the same kind (Newcombe 2006). See docs/errors.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ketwork.networks.measures.intervals import student
from ketwork.quantum import Estimate

_Z = 1.959963984540054
_TIED = 1e-9  # of the largest score: closer ones differ by rounding alone
_HALVINGS = 60


def accuracy(scores: Tensor, codes: Tensor, samples: Tensor | None = None) -> Estimate:
    """Share of rows whose largest score stands at their label, the first of equal ones.

    Standard error: the farther end of Wilson's interval (1927), of as many independent rows as the spread between
    samples leaves.
    """
    if len(codes) == 0:
        return Estimate(math.nan)
    right = correct(scores, codes)
    count = _samples(samples, len(codes))
    value = float(right.mean())
    every = torch.full_like(right, _shrunk(value, count))
    return _share(value, right, torch.full_like(right, 1 / len(right)), every, samples)


def balanced_accuracy(scores: Tensor, codes: Tensor, samples: Tensor | None = None) -> Estimate:
    """Mean over the labels present of the share of their rows that is classified correctly.

    Standard error as of `accuracy`; the spread of a label with few rows is taken towards that of all labels.
    """
    if len(codes) == 0:
        return Estimate(math.nan)
    right = correct(scores, codes)
    recall, places, counts = _recall(right, codes)
    count = _samples(samples, len(codes))
    value = float(recall.mean())
    every = _shrunk(value, count)
    independent = counts * (count / len(codes))
    expected = (independent * recall + _Z**2 * every) / (independent + _Z**2)
    weights = 1 / (counts[places] * len(counts)).double()
    return _share(value, right, weights, expected[places], samples)


def macro_auc(scores: Tensor, codes: Tensor, samples: Tensor | None = None) -> Estimate:
    """Area under the ROC curve, each label against the rest, averaged over the labels present; ties count half.

    For two labels the score is the difference of both, and the number is the usual AUC. Standard error by
    DeLong's structural components (DeLong et al. 1988), which vanish at an area of 1: the area's variance is taken to
    change along its interval as Hanley and McNeil's (1982) does (Newcombe 2006, method 5), and is Student's. Cost
    O(K n log n).
    """
    if len(codes.unique()) < 2:
        return Estimate(math.nan)
    count = _samples(samples, len(codes))
    areas, shares, m, rest = _areas(scores, codes, len(codes) / count)
    area, squares = float(areas.mean()), _together(shares, samples).square()
    delong = float(squares.sum())
    alone, beside = (float((x / (m * rest)).mean()) / len(areas) for x in (1.0, (m + rest) / 2 - 1))

    def known(a: float) -> float:
        """The variance of such an area by Hanley and McNeil, the number of rows in the middle of both labels'."""
        return a * (1 - a) * (alone + beside * ((1 - a) / (2 - a) + a / (1 + a)))

    prior = known(_shrunk(area, count)) * _Z**2 / (count + _Z**2)
    scale = student(squares, prior) ** 2 * (delong + prior) / (known(area) + prior)
    low, high = _interval(area, lambda a: scale * known(a))
    return Estimate(area, math.hypot(high - low, low + high - 2 * area) / (2 * _Z))


def worth(scores: Tensor, codes: Tensor) -> float:
    """AUC plus balanced accuracy, without their errors; NaN of fewer than two labels."""
    if len(codes.unique()) < 2:
        return math.nan
    recall, _, _ = _recall(correct(scores, codes), codes)
    return float(_areas(scores, codes)[0].mean() + recall.mean())


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
    shares = _together((residual - ratio * spread) / total, samples)
    return Estimate(float(1 - ratio), float(shares.square().sum().sqrt()))


def correct(scores: Tensor, codes: Tensor) -> Tensor:
    """1 for each row (n,) whose largest score stands at its label, the first of equal ones, and 0 for others."""
    return (_levelled(scores).argmax(dim=1) == codes).double()


def confusion(scores: Tensor, codes: Tensor) -> Tensor:
    """Counts (K, K): row the label, column the label read, the first of equal ones."""
    k = scores.shape[1]
    return torch.bincount(codes * k + _levelled(scores).argmax(dim=1), minlength=k * k).reshape(k, k)


def _levelled(scores: Tensor) -> Tensor:
    """Scores as whole numbers of their rounding, in which ties are equal."""
    unit = _TIED * scores.abs().max().clamp(min=torch.finfo(torch.float64).tiny).double()
    return (scores.double() / unit).round()


def _recall(right: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The share of each present label's rows that is right, each row's place among these labels, and their rows."""
    _, places, counts = codes.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros_like(counts, dtype=torch.float64).index_add(0, places, right)
    return hits / counts, places, counts


def _areas(scores: Tensor, codes: Tensor, within: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each label's AUC (K, 1), every row's share in their mean (n,), and how many rows are the label's or not, (K, 1).

    With so many rows `within` a sample these are samples. Squares of the shares sum to the variance of the mean, of
    each side's samples one lost to its own mean.
    """
    n, k = scores.shape
    present, counts = codes.unique(return_counts=True)
    scores = _levelled(scores)
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
    m, rest = m / within, rest / within
    sides = [within * (x * (x - 1).clamp(min=1)).sqrt() for x in (m, rest)]
    return areas, ((beats - areas) / torch.where(mine, *sides)).mean(dim=0), m, rest


def _share(
    value: float, right: Tensor, weights: Tensor, expected: Tensor, samples: Tensor | None
) -> Estimate:
    """`value` = Σ weights · right with Wilson's error; `expected` is each row's chance to be right, not 0 or 1."""
    n, middle = len(right), float(weights @ expected)
    rows = weights * (right - expected)
    together = _together(rows, samples)
    # How much more samples vary than their rows would alone, with as many samples more as Wilson's interval adds,
    # the rows of each all right or all wrong.
    more = _Z**2 * middle * (1 - middle)
    inflation = (float(together.square().sum()) + more / len(together) ** 2) / (
        float(rows.square().sum()) + more / (n * len(together))
    )
    variance = inflation * float(weights.square() @ (expected * (1 - expected)))
    count = middle * (1 - middle) / variance
    low, high = _interval(value, lambda p: p * (1 - p) / count)
    return Estimate(value, max(value - low, high - value) / _Z)


def _samples(samples: Tensor | None, n: int) -> int:
    return n if samples is None else len(samples.unique())


def _shrunk(share: float, n: float) -> float:
    """The middle of Wilson's interval."""
    return (n * share + _Z**2 / 2) / (n + _Z**2)


def _interval(value: float, variance: Callable[[float], float]) -> tuple[float, float]:
    """The score interval of a number in 0 … 1: the farthest p on both sides with (p − value)² ≤ 1.96² variance(p)."""
    ends = []
    for outside in (0.0, 1.0):
        inside = value
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if (middle - value) ** 2 <= _Z**2 * variance(middle):
                inside = middle
            else:
                outside = middle
        ends.append(inside)
    return ends[0], ends[1]


def _together(shares: Tensor, samples: Tensor | None) -> Tensor:
    """The sums of shares over the rows of each sample."""
    if samples is None:
        return shares
    _, places = samples.unique(return_inverse=True)
    return shares.new_zeros(int(places.max()) + 1).index_add(0, places, shares)
