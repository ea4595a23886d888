"""The intervals that ± stands for, against their closed forms and by how often they hold."""

import math
from statistics import NormalDist

import pytest
import torch
from scipy import stats

from ketwork.networks.measures.intervals import between, interval, reaching, skewed, student


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


def test_johnsons_interval_reaches_farther_to_the_side_of_the_tail() -> None:
    """The mean of x with skewness γ lies within γ(1 + 2z²)/6√N ± z standard errors, to first order in γ."""
    x = torch.randn(300, generator=torch.Generator().manual_seed(1), dtype=torch.float64).exp()
    x = x - x.mean()
    gamma = stats.skew(x.numpy())
    shift = gamma * (1 + 2 * 1.959964**2) / (6 * math.sqrt(300))
    shares = torch.ones(300, dtype=torch.float64)
    assert skewed(x, shares) == pytest.approx(shift / 1.959964)
    assert skewed(-x, shares) == skewed(x, shares)
    # 30 that stand for ten each, of the same skewness, shift it as 300 do.
    few = x[:30] - x[:30].mean()
    factor = stats.skew(few.numpy()) / gamma
    assert skewed(few, torch.full((30,), 10.0, dtype=torch.float64)) == pytest.approx(
        factor * shift / 1.959964
    )
    assert reaching(x, shares) == pytest.approx(student(x.square()) + skewed(x, shares))
    assert skewed(torch.zeros(5), torch.ones(5)) == 0


@pytest.mark.parametrize(
    ("power", "least", "most"), [(1, 0.94, 0.97), (2, 0.94, 0.97)], ids=["normal", "squares"]
)
def test_means_of_50_are_held_in_95_of_100(power: int, least: float, most: float) -> None:
    """Of squares of normal numbers, the normal interval holds the mean in 91 of 100 only."""
    x = torch.randn(4000, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64) ** power
    mean, stderr = x.mean(dim=1), x.std(dim=1) / math.sqrt(50)
    shares = torch.ones(50, dtype=torch.float64)
    factors = torch.tensor([reaching(row - row.mean(), shares) for row in x])
    off = (mean - float(power - 1)).abs() / 1.96
    assert least < float((off <= stderr * factors).double().mean()) < most
    if power == 2:
        assert float((off <= stderr).double().mean()) < 0.925
        assert float(factors.median()) < 1.35
