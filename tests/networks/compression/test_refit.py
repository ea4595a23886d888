"""The refit of one layer to what the original puts out: its normal equations, and a ridge that data held out chose."""

import pytest
import torch
from torch import Tensor

from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Metric, Pair, refit

M, K = 5, 8


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(weight: Tensor, x: Tensor, other: Tensor) -> Pair:
    y = x @ weight.T
    return Pair(Scatter.of(other), Scatter.of(y, other).covariance(), y.mean(0))


def case(n: int, noise: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W, b, the original's inputs, and those of the smaller network: turned, shifted, noisy."""
    weight, bias, x = normal(M, K, seed=0), normal(M, seed=1), normal(n, K, seed=2)
    turn = torch.eye(K, dtype=torch.float64) + 0.3 * normal(K, K, seed=3)
    return weight, bias, x, x @ turn.T + 2 + noise * normal(n, K, seed=4)


def test_the_ridge_solution_satisfies_its_normal_equations() -> None:
    weight, bias, x, other = case(3000, 0.3)
    whole = pair(weight, x, other)
    found = refit(weight, bias, whole, pair(weight, x[:2000], other[:2000]), pair(weight, x[2000:], other[2000:]),
                  Metric.none(weight))  # fmt: skip
    d = torch.cov(other.T, correction=0)
    c = torch.cov(torch.cat([x @ weight.T, other], 1).T, correction=0)[:M, M:]
    # The gradient of E ‖W x − V x̃‖² + δ ‖V − W‖² over V, halved.
    gradient = found.dense @ d - c + found.ridge * (found.dense - weight)
    assert float(gradient.norm()) < 1e-9 * float(c.norm())
    off = (x @ weight.T + bias) - (other @ found.dense.T + found.bias)
    torch.testing.assert_close(off.mean(0), torch.zeros(M, dtype=torch.float64), atol=1e-9, rtol=0)


def test_with_much_data_a_turned_input_is_turned_back() -> None:
    weight, bias, x, other = case(3000, 0.0)
    part, rest = pair(weight, x[::2], other[::2]), pair(weight, x[1::2], other[1::2])
    found = refit(weight, bias, pair(weight, x, other), part, rest, Metric.none(weight))
    assert found.ridge < 1e-5 * float(torch.linalg.eigvalsh(torch.cov(other.T))[-1])
    torch.testing.assert_close(other @ found.dense.T + found.bias, x @ weight.T + bias, atol=1e-4, rtol=1e-4)


def test_with_little_data_the_ridge_is_the_one_that_does_best_on_the_rest() -> None:
    weight, bias, x, other = case(40, 1.0)
    part, rest = pair(weight, x[:30], other[:30]), pair(weight, x[30:], other[30:])
    found = refit(weight, bias, pair(weight, x, other), part, rest, Metric.none(weight))
    largest = float(torch.linalg.eigvalsh(torch.cov(other[:30].T, correction=0))[-1])

    def judged(ridge: float) -> float:
        d, c = part.inputs.covariance(), part.cross
        damped = d + ridge * torch.eye(K, dtype=torch.float64)
        dense = weight + torch.linalg.solve(damped, c - weight @ d, left=False)
        y, z = x[30:] @ weight.T, other[30:] @ dense.T
        return float(((y - y.mean(0)) - (z - z.mean(0))).square().sum(1).mean())

    ridges = [10.0**power * largest for power in range(-7, 1)]
    assert found.ridge == pytest.approx(min(ridges, key=judged))
    assert judged(found.ridge) < judged(ridges[0])


def test_where_no_correction_helps_the_weight_stays() -> None:
    weight, bias, x, _ = case(60, 0.0)
    whole = pair(weight, x, x)
    found = refit(weight, bias, whole, whole, whole, Metric.none(weight))
    torch.testing.assert_close(found.dense, weight, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.bias, bias, atol=1e-12, rtol=1e-12)
    constant = pair(weight, x, torch.ones_like(x))
    assert refit(weight, bias, constant, constant, constant, Metric.none(weight)).ridge == torch.inf


def test_its_target_is_the_mean_of_the_originals_output() -> None:
    weight, bias, x, other = case(3000, 0.3)
    whole = pair(weight, x, other)
    found = refit(weight, bias, whole, whole, whole, Metric.none(weight))
    torch.testing.assert_close(found.target, (x @ weight.T + bias).mean(0))
