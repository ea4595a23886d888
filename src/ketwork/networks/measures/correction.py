"""Estimates without the bias of finite data, by deleting one sample at a time; ± that covers; and ranges.

The jackknife (Quenouille 1956, Biometrika 43; Efron & Stein 1981, Ann. Stat. 9): with θ₋ᵢ the number without sample
i, the bias is (N − 1) Σᵢ (θ₋ᵢ − θ)/N. The first-order part of θ₋ᵢ − θ sums to 0 over all samples, so that
the mean over the kept ones is of the other parts alone. The jackknife's variance holds that of the second order twice;
once is subtracted. docs/errors.md derives all of it.
"""

from __future__ import annotations

import math

import torch

from ketwork.networks.measures.deletion import Changes, Deletion
from ketwork.networks.measures.intervals import student
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate

MOST_BIAS = 0.6
"""Nats of bias up to which an entropy is corrected: five independent samples for six degrees of freedom, at least."""

DECISIVE = 5
"""How many samples should not decide a standard error."""

_MANY = 200  # samples; of 100 Gaussian ones, five may carry half of the variance
_EXACT = 1e-10


def corrected(
    plain: float, state: LayerState, changes: Changes, first: float, unit: float = 1.0, most: float = math.inf
) -> Estimate:
    """The number without its bias of second order, and its standard error; "–" where the bias is above `most`.

    What the correction misses is a fraction of it, so that a number with an error of a third of it or more is shown.

    `first` is the variance of the first order, `unit` turns the changes into the number's unit.
    """
    n, shares = state.sample.samples, changes.shares
    rest = changes.exact - changes.linear
    bias = (n - 1) / n * float(shares @ rest)
    centred = changes.exact - bias / (n - 1)
    more = (n - 1) / n * float(shares @ (centred.square() - changes.linear.square()))
    second = changes.second * unit**2
    # The variance of the correction itself, over the samples that are deleted.
    own = float(shares @ ((n - 1) * rest - bias).square()) / n / max(len(rest) - 1, 1)
    variance = max(first + more * unit**2 - second, second, 0.0) + own * unit**2
    error = studentized(state, changes.first) * math.sqrt(variance)
    if not (abs(bias) <= most or error >= abs(bias) * unit / 3):
        return Estimate(plain=plain)
    return Estimate(plain - bias * unit, error, plain=plain)


def studentized(state: LayerState, first: torch.Tensor) -> float:
    """What a standard error is multiplied with to be Student's, of the kept samples' first-order changes (R,)."""
    return student(state.sample.shares * first.square())


def decisive_share(state: LayerState) -> float | None:
    """The share of the entropy's variance that `DECISIVE` of the kept samples carry; None of fewer than 200 samples.

    Nor is it known of states that are not decomposed, or whose entropy does not vary but by rounding.
    """
    if not state.exists or state.known is not None or not deletion(state).possible:
        return None
    first, shares = deletion(state).entropy.first, state.sample.shares
    if state.sample.samples < _MANY:
        return None
    squares = (shares * first.square()).sort(descending=True).values
    total = float(squares.sum())
    return float(squares[:DECISIVE].sum()) / total if total > _EXACT**2 else None


def ranged(estimate: Estimate, low: float, high: float) -> Estimate:
    """The mean and standard deviation of the normal law of an estimate, cut to where the number can lie.

    The estimate itself where the range is more than eight errors away. At a bound that the number reaches, value ±
    1.96 covers it in 95 % of cases, and is inside the range always (Helene 1983, Nucl. Instrum. Methods 212).

    >>> ranged(Estimate(3.0, 0.01), 0, 4), ranged(Estimate(0.0, 0.1), 0, 4)
    (<Estimate 3.000 ± 0.010>, <Estimate 0.08 ± 0.06>)
    """
    value, error = estimate.value, estimate.stderr
    if not math.isfinite(value):
        return estimate
    nearest = min(max(value, low), high)
    if not error > _EXACT * max(1.0, abs(value)):
        return Estimate(nearest, error, plain=estimate.plain)
    if low + 8 * error < value < high - 8 * error:
        return estimate
    beyond = abs(value - nearest) / error**2
    width = min(8 * error, 40 / beyond if beyond > 0 else math.inf)
    x = torch.linspace(max(low, nearest - width), min(high, nearest + width), 4001, dtype=torch.float64)
    power = -((x - value) ** 2 - (nearest - value) ** 2) / (2 * error**2)
    weights = power.exp()
    weights[[0, -1]] /= 2
    weights = weights / weights.sum()
    mean = float(weights @ x)
    return Estimate(mean, math.sqrt(float(weights @ (x - mean) ** 2)), plain=estimate.plain)


def deletion(state: LayerState) -> Deletion:
    """The deletion of a state's samples, of which the parts are computed once for all measures."""
    return state.shared(Deletion)
