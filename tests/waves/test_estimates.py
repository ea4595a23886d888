import math

import numpy as np
import pytest
import torch

from ketwork.waves import estimate
from ketwork.waves.estimates import split_rhat


def autoregressive(rho: float, chains: int, length: int, seed: int = 0) -> torch.Tensor:
    """Chains x_{t+1} = ρ x_t + √(1−ρ²) noise: variance 1, Σ_k ρ^k = ρ/(1−ρ)."""
    rng = np.random.default_rng(seed)
    x = np.empty((chains, length))
    x[:, 0] = rng.normal(size=chains)
    for t in range(1, length):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=chains)
    return torch.from_numpy(x)


@pytest.mark.parametrize("chains", [4, 16, 400])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_autocorrelation_time_and_error_of_a_known_process(chains, rho) -> None:
    """The error is the larger of two estimates, both noisy, one widened by Student's quantile."""
    length = 80000 // chains
    found = [estimate(autoregressive(rho, chains, length, seed)) for seed in range(8)]
    tau = rho / (1 - rho)
    assert np.mean([e.tau for e in found]) == pytest.approx(tau, rel=0.15, abs=0.1)
    error = np.sqrt(np.mean([e.stderr**2 for e in found]))
    assert 0.95 < error / math.sqrt((1 + 2 * tau) / 80000) < 1.3
    assert np.mean([e.variance for e in found]) == pytest.approx(1, rel=0.1)
    assert max(abs(e.value) / e.stderr for e in found) < 5
    assert max(abs(e.rhat - 1) for e in found) < 0.02 + tau / length * 6


def test_the_error_covers_the_truth_as_often_as_it_says() -> None:
    inside = [
        abs(e.value) < 2 * e.stderr
        for e in (estimate(autoregressive(0.6, 16, 63, seed)) for seed in range(200))
    ]
    assert 0.88 < sum(inside) / 200 < 0.99  # 0.954 for a Gaussian


def test_rhat_sees_chains_that_disagree_and_chains_that_drift() -> None:
    agreeing = autoregressive(0.0, 8, 200)
    assert split_rhat(agreeing) == pytest.approx(1, abs=0.02)
    assert split_rhat(agreeing + torch.arange(8.0)[:, None]) > 2
    assert split_rhat(agreeing + torch.linspace(0, 4, 200)) > 1.3
    # the formula by hand, for two chains of four and equal spread, one apart: B/n = ½
    two = torch.stack([agreeing[0, :4], agreeing[0, :4] + 1])
    within = float(agreeing[0, :4].var())
    assert split_rhat(two) == pytest.approx(math.sqrt(3 / 4 + 0.5 / within))
    assert math.isnan(split_rhat(torch.zeros(5, 1)))


def test_a_full_sum_has_no_error() -> None:
    values, weights = torch.tensor([[1.0, 3.0]]), torch.tensor([[3.0, 1.0]])
    found = estimate(values, weights, sites=2, infinite=0.0)
    assert (found.value, found.stderr, found.variance) == (1.5, 0.0, 0.75)
    assert found.vscore == pytest.approx(2 * 0.75 / 1.5**2)
    assert "1.50000000 (exact sum)" in str(found)


def test_complex_values_keep_their_imaginary_part() -> None:
    found = estimate(torch.tensor([[1 + 1j, 3 + 1j]]))
    assert (found.value, found.imaginary, found.variance) == (2.0, 1.0, 1.0)


def test_it_prints_with_as_many_digits_as_the_error_has() -> None:
    found = estimate(autoregressive(0.0, 16, 1000) * 0.1 - 25.489, sites=20, infinite=0.0)
    assert str(found).startswith("-25.48")
    assert " ± 0.0008" in str(found)
    assert "V-score=3" in str(found)
