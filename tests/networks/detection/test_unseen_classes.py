"""How well distances tell classes whose means are put aside."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ketwork.networks.detection.unseen_classes import area, unseen_class_auc


def test_the_area_is_that_of_scikit_learn_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    known = torch.randint(0, 20, (300,), generator=generator).double()
    other = torch.randint(5, 25, (200,), generator=generator).double()
    truth = np.r_[np.zeros(300), np.ones(200)]
    assert area(known, other) == pytest.approx(roc_auc_score(truth, torch.cat([known, other])), rel=1e-12)


def test_each_class_is_told_by_its_distance_to_the_other_means() -> None:
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(90, 3, generator=generator, dtype=torch.float64)
    codes = torch.arange(90) % 3
    means = torch.tensor([2, 0, 1])  # the columns are of the classes in another order
    expected = []
    for column, code in enumerate(means.tolist()):
        rest = [other for other in range(3) if other != column]
        scores = distances[:, rest].amin(1)
        expected.append(roc_auc_score((codes == code).numpy(), scores))
    assert unseen_class_auc(distances, means, codes) == pytest.approx(np.mean(expected), rel=1e-12)


def test_many_classes_are_put_aside_in_ten_turns() -> None:
    far = 5.0 * (1 - torch.eye(37, dtype=torch.float64))
    assert unseen_class_auc(far, torch.arange(37), torch.arange(37)) == 1.0


def test_one_class_says_nothing() -> None:
    assert unseen_class_auc(torch.rand(5, 1), torch.tensor([0]), torch.zeros(5, dtype=torch.int64)) == 0.5
    assert unseen_class_auc(torch.rand(5, 2), torch.tensor([0, 1]), torch.ones(5, dtype=torch.int64)) == 0.5
