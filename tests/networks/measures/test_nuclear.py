"""Bures similarity's error and bias against the jackknife, and against the population."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ketwork.networks.measures.nuclear import _bend

from ..related import compared


def drawn(n: int, seed: int) -> list[Tensor]:
    """Two layers whose cross-covariance has full rank."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, 4, generator=generator)
    return [
        shared @ MIXING[i] + 0.6 * torch.randn(n, MIXING[i].shape[1], generator=generator) for i in range(2)
    ]


MIXING = [torch.randn(4, d, generator=torch.Generator().manual_seed(7)) for d in (4, 6)]


def population() -> float:
    """The similarity of the population, from the covariances."""
    x, y = (mixing.T @ mixing + 0.36 * torch.eye(mixing.shape[1]) for mixing in MIXING)
    return float(torch.linalg.matrix_norm(MIXING[0].T @ MIXING[1], "nuc") / (x.trace() * y.trace()).sqrt())


def test_the_error_is_that_of_deleting_one_sample_at_a_time() -> None:
    layers = drawn(80, 0)
    found, _ = compared(layers)
    without = [
        float(compared([torch.cat([x[:i], x[i + 1 :]]) for x in layers], batch=80)[0].bures.iloc[0, 1])
        for i in range(80)
    ]
    deleted = math.sqrt(79 / 80 * float(np.sum((np.array(without) - np.mean(without)) ** 2)))
    assert found.stderr("bures_corrected").iloc[0, 1] == pytest.approx(deleted, rel=0.1)
    bias = 79 * (float(np.mean(without)) - found.bures.iloc[0, 1])  # of the plain value
    corrected = found.frame("bures_corrected").iloc[0, 1]
    assert found.bures.iloc[0, 1] - corrected == pytest.approx(bias, rel=0.2)


def test_the_corrected_similarity_is_the_populations_and_its_error_the_spread() -> None:
    truth = population()
    plain, corrected, errors, covered = [], [], [], 0
    for seed in range(60):
        found, _ = compared(drawn(60, seed), batch=60)
        estimate, value = found.estimate("bures_corrected", 0, 1), found.estimate("bures", 0, 1)
        plain.append(value.value)
        corrected.append(estimate.value)
        errors.append(estimate.stderr)
        covered += abs(value.value - truth) <= 1.96 * value.stderr
    spread = float(np.std(corrected, ddof=1))
    assert abs(np.mean(corrected) - truth) < 3 * spread / math.sqrt(60)
    assert np.mean(plain) - truth > 3 * spread / math.sqrt(60)
    assert np.median(errors) == pytest.approx(spread, rel=0.25)
    assert covered >= 57  # the plain value's error holds its bias too


def test_near_the_chance_level_there_is_no_correction_but_the_error_reaches_zero() -> None:
    generator = torch.Generator().manual_seed(1)
    found, _ = compared([torch.randn(100, 12, generator=generator) for _ in range(2)])
    value = found.estimate("bures", 0, 1)
    assert value.value == pytest.approx(found.bures_null.iloc[0, 1], rel=0.1)
    assert math.isnan(found.frame("bures_corrected").iloc[0, 1])
    assert value.value <= 1.96 * value.stderr  # unrelated is among what it may be


def test_equal_layers_have_neither_error_nor_bias() -> None:
    x = drawn(60, 3)[0]
    found, _ = compared([x, x.clone()])
    assert found.frame("bures_corrected").iloc[0, 1] == pytest.approx(1, abs=1e-9)
    assert found.stderr("bures_corrected").iloc[0, 1] == pytest.approx(0, abs=1e-7)


def test_the_second_order_is_that_of_all_pairs_of_singular_values() -> None:
    draw = torch.Generator().manual_seed(4)
    p, q, y = (torch.randn(30, k, generator=draw, dtype=torch.float64) for k in (5, 5, 7))
    y[:, :5] = q  # its coordinates along the v, and two beside them
    sigma = torch.rand(5, generator=draw, dtype=torch.float64) + 0.1
    total = 0.0
    for row in range(30):
        for j in range(5):
            total += float(p[row, j] ** 2 * y[row, 5:].square().sum() / sigma[j]) / 2
            for k in range(j):
                apart = float(p[row, j] * q[row, k] - p[row, k] * q[row, j])
                total += apart**2 / float(sigma[j] + sigma[k]) / 2
    assert _bend(p, q, y, sigma) == pytest.approx(total / 30, rel=1e-12)
