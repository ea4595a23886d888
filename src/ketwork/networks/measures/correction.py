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
from ketwork.networks.measures.state import LayerState
from ketwork.quantum import Estimate

MOST_BIAS = 0.6
"""Nats of bias up to which an entropy is corrected: five independent samples for six degrees of freedom, at least."""

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
    """What a standard error is multiplied with, so that ± 1.96 of it is Student's interval, not the normal one.

    The variance over samples is itself known to ν = 2/(Σ x⁴/(Σ x²)² − 1/R) degrees of freedom (Satterthwaite 1946,
    Biometrics Bull. 2), far fewer than samples where few of them decide.
    """
    sample = state.sample
    squares = sample.shares * first.square()
    total = float(squares.sum())
    r = len(squares)
    if not total > 0 or r < 2:
        return 1.0
    known = 2 / max(float(squares.square().sum()) / total**2 - 1 / r, 1e-12)
    z, nu = 1.959964, max(min(known, r - 1), 2.0)
    # Fisher and Cornish's expansion of Student's quantile: 0.3 % at ν = 3, 3 % at ν = 2.
    more = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    ]
    return 1 + sum(term / nu ** (i + 1) for i, term in enumerate(more)) / z


def between(low: float, high: float, error: float) -> float:
    """How far a 95 % interval reaches beyond the bounds of a number, estimated with that standard error.

    In units of the error, c of Φ(c + (high − low)/error) − Φ(−c) = 0.95, from 1.96 of equal bounds to 1.645 of distant
    ones, of which only one can be near (Imbens and Manski 2004, Econometrica 72, 1845).

    >>> round(between(0, 0, 1), 2), round(between(0, 9, 1), 3)
    (1.96, 1.645)
    """
    gap = (high - low) / error if error > 0 else math.inf
    short, far = 1.6, 2.0
    for _ in range(40):
        middle = (short + far) / 2
        short, far = (middle, far) if _normal(middle + gap) - _normal(-middle) < 0.95 else (short, middle)
    return far


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


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
