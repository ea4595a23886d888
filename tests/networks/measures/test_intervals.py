"""The intervals that ± stands for, against their closed forms and by how often they hold."""

from statistics import NormalDist

import pytest
import torch
from scipy import stats

from ketwork.networks.measures.intervals import between, interval, student


def test_an_interval_between_two_bounds_holds_either_in_95_of_100() -> None:
    normal = NormalDist()
    for gap in (0.0, 0.1, 0.7, 2.0, 30.0):
        reach = between(0.2, 0.2 + gap * 0.3, 0.3)
        assert normal.cdf(reach + gap) - normal.cdf(-reach) == pytest.approx(0.95, abs=1e-9)
    assert between(0.0, 1.0, 0.0) == pytest.approx(1.645, abs=1e-3)


def test_an_estimate_of_an_interval_reaches_its_ends() -> None:
    estimate = interval(0.2, 0.9)
    assert estimate.value - 1.96 * estimate.stderr == pytest.approx(0.2)
    assert estimate.value + 1.96 * estimate.stderr == pytest.approx(0.9)
    assert interval(1 + 4e-16, 1.0, 1.0).stderr == 0


@pytest.mark.parametrize("r", [4, 11, 50, 2000])
def test_equal_squares_have_students_quantile_of_one_less(r: int) -> None:
    assert student(torch.ones(r)) * 1.959964 == pytest.approx(stats.t.ppf(0.975, r - 1), rel=8e-3)


def test_degrees_of_freedom_are_satterthwaites() -> None:
    """Of Gaussian changes there are half as many for a kurtosis of 5, and more where a part is known."""
    changes = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changes = changes * torch.tensor([0.5, 1.5], dtype=torch.float64).repeat(2000)
    squares = changes[:40].square()
    nu = 2 / (float(squares.square().sum() / squares.sum() ** 2) - 1 / 40)
    assert student(squares) * 1.959964 == pytest.approx(stats.t.ppf(0.975, nu), rel=4e-3)
    total = float(squares.sum())
    assert student(squares, known=total) * 1.959964 == pytest.approx(stats.t.ppf(0.975, 4 * nu), rel=4e-3)
