"""Shrinkage from moments alone is that of scikit-learn on the vectors; the edge is where noise alone ends."""

import math

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from ketwork.networks.detection.shrinkage import (
    about_zero,
    between_classes,
    edge,
    marchenko_pastur_median,
    whitening,
    within_classes,
)
from ketwork.networks.moments import ClassMoments


def kets(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(0, -1.5, d, dtype=torch.float64)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64) * spread + 0.3
    return torch.nn.functional.normalize(rows)


def class_moments(x: Tensor, y: Tensor, form: str) -> ClassMoments:
    """Held as rows, as a matrix a class, and as leading rows beside the sum over all classes."""
    most = {"rows": None, "dense": None, "cut": 2000}[form]
    moments = ClassMoments.from_vectors(x, y, int(y.max()) + 1, most)
    assert {
        "rows": moments.dense is None,
        "dense": moments.dense is not None,
        "cut": moments.total is not None,
    }[form]
    return moments


@pytest.mark.parametrize(("form", "n"), [("rows", 15), ("dense", 400)])
def test_the_shared_covariance_and_its_shrinkage_are_those_of_the_vectors(form: str, n: int) -> None:
    x, y = kets(n, 6), torch.arange(n) % 3
    moments = class_moments(x, y, form)
    rest = (x - torch.stack([x[y == k].mean(0) for k in range(3)])[y]).numpy()
    reference = LedoitWolf(assume_centered=True).fit(rest)
    made = within_classes(moments)
    np.testing.assert_allclose(made.matrix.numpy(), rest.T @ rest / n, atol=1e-12)
    assert made.fourth == pytest.approx(float((rest**2).sum(1) @ (rest**2).sum(1)) / n, rel=1e-10)
    assert made.shrinkage == pytest.approx(reference.shrinkage_, rel=1e-8)
    assert 0 < made.shrinkage < 1
    np.testing.assert_allclose(made.shrunk().numpy(), reference.covariance_, rtol=1e-8, atol=1e-12)
    inverse = whitening(made.shrunk()).numpy()
    np.testing.assert_allclose(inverse @ inverse.T, reference.precision_, rtol=1e-7, atol=1e-7)


def test_within_and_between_classes_add_up_to_the_covariance() -> None:
    x, y = kets(50, 6, seed=1), torch.arange(50) % 4
    moments = ClassMoments.from_vectors(x, y, 4)
    total = np.cov(x.numpy().T, bias=True)
    found = within_classes(moments).matrix + between_classes(moments)
    np.testing.assert_allclose(found.numpy(), total, atol=1e-12)


def test_of_a_state_of_unit_vectors_the_purity_is_enough() -> None:
    x = kets(40, 7, seed=2)
    rho = x.T @ x / 40
    made = about_zero(rho, 40)
    reference = LedoitWolf(assume_centered=True).fit(x.numpy())
    assert made.shrinkage == pytest.approx(reference.shrinkage_, rel=1e-8)
    purity = float(rho.square().sum())
    assert made.shrinkage == pytest.approx((1 - purity) / 40 / (purity - 1 / 7), rel=1e-10)


def test_vectors_that_are_all_alike_are_not_shrunk_and_maximally_mixed_ones_wholly() -> None:
    one = torch.zeros(4, 4, dtype=torch.float64)
    one[0, 0] = 1
    assert about_zero(one, 10).shrinkage == 0
    assert about_zero(torch.eye(4, dtype=torch.float64) / 4, 10).shrinkage == 1


def test_classes_whose_rows_were_cut_keep_the_exact_sum() -> None:
    x, y = kets(600, 8, seed=3), torch.arange(600) % 6
    full, cut = ClassMoments.from_vectors(x, y, 6), class_moments(x, y, "cut")
    assert cut.discarded > 0
    torch.testing.assert_close(cut.summed(), full.summed(), atol=1e-9, rtol=0)
    torch.testing.assert_close(within_classes(cut).matrix, within_classes(full).matrix, atol=1e-10, rtol=0)
    # Of what a class lost only the weight is its own, so that this is an estimate.
    torch.testing.assert_close(cut.along_means(), full.along_means(), rtol=0.05, atol=0)


@pytest.mark.parametrize(("ratio", "n"), [(0.1, 4000), (0.5, 1600), (1.0, 1000)])
def test_the_median_of_white_noise_is_that_of_its_law(ratio: float, n: int) -> None:
    d = round(ratio * n)
    x = np.random.default_rng(0).normal(size=(n, d))
    values = np.linalg.svd(x, compute_uv=False) ** 2 / n
    assert marchenko_pastur_median(ratio) == pytest.approx(np.median(values), rel=0.01)


def test_few_samples_of_each_feature_have_variance_one() -> None:
    assert marchenko_pastur_median(1e-9) == pytest.approx(1, abs=1e-4)


def test_noise_lies_below_the_edge_and_three_signals_above() -> None:
    n, d = 3000, 300
    generator = np.random.default_rng(1)
    x = 0.2 * generator.normal(size=(n, d))
    values = torch.linalg.svdvals(torch.from_numpy(x)).square() / n
    assert float(values[0]) == pytest.approx(edge(values, n), rel=0.03)
    assert edge(values, n) == pytest.approx(0.04 * (1 + math.sqrt(d / n)) ** 2, rel=0.01)
    x[:, :3] *= (8, 5, 3)
    values = torch.linalg.svdvals(torch.from_numpy(x)).square() / n
    assert int((values > 1.03 * edge(values, n)).sum()) == 3


def test_features_that_are_always_zero_are_no_noise() -> None:
    values = torch.tensor([9.0, 1.0, 1.0, 1.0] + [0.0] * 20)
    assert edge(values, 10**9) == pytest.approx(1.0, abs=1e-3)
