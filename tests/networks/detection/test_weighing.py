"""p-values are uniform where new samples are like those of the calibration, and weights come from these alone."""

import numpy as np
import pytest
import torch
from scipy import stats

from ketwork.networks.detection.weighing import Weighing, p_values


def test_p_values_count_the_calibration_scores_that_are_as_large() -> None:
    calibration = torch.tensor([3.0, 1.0, 2.0, 2.0])
    found = p_values(torch.tensor([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0, torch.nan]), calibration)
    np.testing.assert_allclose(found.numpy(), [1, 1, 0.8, 0.8, 0.4, 0.4, 0.2, np.nan])


def test_p_values_of_like_samples_are_uniform() -> None:
    """Each of 4,000 calibrations of its own with one new sample: p is uniform on 1/20 … 20/20."""
    draws = torch.from_numpy(np.random.default_rng(0).gumbel(size=(4000, 20)))
    found = torch.stack([p_values(row[:1], row[1:])[0] for row in draws])
    counts = np.bincount((20 * found).round().long().numpy(), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 0.01
    # Spread evenly below each step, they pass a test for a continuous uniform law too.
    smooth = found.numpy() - np.random.default_rng(1).uniform(0, 1 / 20, size=4000)
    assert stats.kstest(smooth, "uniform").pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
def test_false_alarms_are_at_most_alpha(alpha: float) -> None:
    draws = torch.from_numpy(np.random.default_rng(2).normal(size=(3000, 100)))
    alarms = np.mean([float(p_values(row[:1], row[1:])) <= alpha for row in draws])
    assert alarms <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 3000)
    assert alarms >= alpha - 3 * np.sqrt(alpha * (1 - alpha) / 3000)  # 100 is a multiple of 1/α


def test_ties_make_p_values_larger_and_never_smaller() -> None:
    draws = torch.from_numpy(np.random.default_rng(3).integers(0, 3, size=(2000, 40))).double()
    found = torch.stack([p_values(row[:1], row[1:])[0] for row in draws])
    for alpha in (0.05, 0.2, 0.5):
        assert float((found <= alpha).double().mean()) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 2000)


def test_the_exponent_of_a_lomax_tail_is_found_and_its_surprisal_is_exponential() -> None:
    """Of P(z > t) = ½ (1 + t)^−a above the median, −log P less log 2 has mean 1 there."""
    a, n = 3.0, 40_000
    generator = np.random.default_rng(4)
    tail = generator.pareto(a, size=n)
    scores = np.where(generator.random(n) < 0.5, -generator.random(n), tail)
    scale = (
        5 ** (1 / a) - 1
    )  # P = 0.1 there; in its units the law is (1 + scale z)^−a, of which a is not the exponent
    terms = torch.from_numpy(np.c_[scores, 7 + 2 * scores, np.full(n, 3.0)])
    weighing = Weighing.from_terms(terms)
    np.testing.assert_allclose(weighing.centre, [0, 7, 3], atol=0.03)
    np.testing.assert_allclose(weighing.scale, [scale, 2 * scale, 0], rtol=0.05, atol=1e-12)
    expected = 1 / np.log1p(tail / scale).mean()
    np.testing.assert_allclose(weighing.exponent, [expected, expected, 0], rtol=0.03)
    np.testing.assert_allclose(weighing.weights.sum(), 1)
    parts = weighing.parts(terms)
    z = weighing.standardised(terms)[:, 0]
    below = z < 0
    torch.testing.assert_close(parts[below, 0], -weighing.exponent[0] * (1 - z[below]).log())
    assert float(parts[parts[:, 0] > 0, 0].mean()) == pytest.approx(1)
    torch.testing.assert_close(parts[:, 0], parts[:, 1])
    torch.testing.assert_close(weighing.combined(terms), 2 / 3 * parts[:, 0])


def test_a_missing_term_adds_nothing() -> None:
    terms = torch.arange(20.0)[:, None].expand(20, 2).clone()
    weighing = Weighing.from_terms(terms)
    nan = torch.nan
    found = weighing.combined(torch.tensor([[19.0, 19.0], [19.0, nan], [nan, 19.0], [nan, nan]]))
    assert float(found[1]) == pytest.approx(float(found[0]) / 2)
    assert float(found[2]) == pytest.approx(float(found[0]) / 2)
    assert bool(found[3].isnan())
    terms[3, 0] = nan
    assert bool(Weighing.from_terms(terms).exponent.isfinite().all())
    assert not bool(Weighing.from_terms(torch.full((5, 1), nan)).exponent.any())
