"""Which layers tell classes that they have not seen: each class in turn counts as unseen, from held-out samples alone.

Samples that are unlike in a way that matters are often of classes that a study does not have. So the mean of a class is
put aside, and its held-out samples are separated from the others by their Mahalanobis distance to the means that
remain. No data of another kind are needed for that, and no second pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FOLDS = 10
"""The most turns: where there are more classes, several count as unseen at a time."""


def unseen_class_auc(distances: Tensor, means: Tensor, codes: Tensor) -> float:
    """The mean area under the ROC curve by which distances (n, K) tell classes whose means are put aside.

    `means` (K,) are the codes of the classes that have a mean, `codes` (n,) those of the samples. ½ with one class.

    >>> near = torch.tensor([[0.0, 4.0, 4.0], [4.0, 0.0, 4.0], [4.0, 4.0, 0.0]])
    >>> unseen_class_auc(near, torch.arange(3), torch.arange(3))
    1.0
    """
    folds = min(len(means), _FOLDS)
    turns = torch.arange(len(means), device=means.device) % folds
    areas = []
    for turn in range(folds):
        unseen = torch.isin(codes, means[turns == turn])
        if folds > 1 and bool(unseen.any()) and not bool(unseen.all()):
            nearest = distances[:, turns != turn].min(dim=1).values
            areas.append(area(nearest[~unseen], nearest[unseen]))
    return sum(areas) / len(areas) if areas else 0.5


def area(known: Tensor, other: Tensor) -> float:
    """The probability that a score of `other` (m,) is above one of `known` (n,); a tie counts half.

    >>> area(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    ordered = known.sort().values
    below = torch.searchsorted(ordered, other.contiguous())
    up_to = torch.searchsorted(ordered, other.contiguous(), right=True)
    return float((below + up_to).double().mean()) / (2 * len(ordered))
