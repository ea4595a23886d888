"""Bures similarity's error and bounds against deleting samples, and against the population."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

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
    estimate, plain = found.estimate("bures_corrected", 0, 1), found.bures.iloc[0, 1]
    high = plain - 79 * (float(np.mean(without)) - plain)  # the jackknife's value
    low = high - 2 * (high - estimate.value)
    # What the rotation that was fitted to the other samples holds of each.
    x, y = (layer.double() - layer.double().mean(dim=0) for layer in layers)
    seen = 0.0
    for i in range(80):
        u, _, v = torch.linalg.svd(x.T @ y - 80 / 79 * torch.outer(x[i], y[i]), full_matrices=False)
        seen += float(x[i] @ u @ v @ y[i])
    seen /= float(x.norm() * y.norm())
    assert low == pytest.approx(seen, abs=0.1 * (plain - seen))
    reach = 1.96 * estimate.stderr - (high - low) / 2
    assert 1.6 * deleted < reach < 2.3 * deleted


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
