"""The 95 % intervals that ± stands for: where the variance is itself estimated, of skewed changes, between bounds."""

from __future__ import annotations

import math

from torch import Tensor

from ketwork.quantum import Estimate

_Z = 1.959964
_FEWEST = 2.0  # degrees of freedom


def student(squares: Tensor, known: float = 0.0) -> float:
    """What a standard error is multiplied with, so that ± 1.96 of it is Student's interval, not the normal one.

    `squares` (R,) are those that the variance is the sum of. It is known to ν = 2/(Σ x⁴/(Σ x²)² − 1/R) degrees of
    freedom (Satterthwaite 1946, Biometrics Bull. 2), far fewer than R − 1 where few samples decide. A part of the
    variance that is `known` varies no further.

    >>> import torch
    >>> round(student(torch.ones(11)), 2), round(student(torch.tensor([100.0] + [1.0] * 10)), 1)
    (1.14, 1.7)
    """
    r, total = len(squares), float(squares.sum())
    if not total > 0 or r < 2:
        return 1.0
    own = min(2 / max(float(squares.square().sum()) / total**2 - 1 / r, 1e-12), r - 1)
    z, nu = _Z, max(own * (1 + known / total) ** 2, _FEWEST)
    # Fisher and Cornish's expansion of Student's quantile: 0.8 % at ν = 3, 3 % at ν = 2.
    more = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    ]
    return 1 + sum(term / nu ** (i + 1) for i, term in enumerate(more)) / z


def skewed(changes: Tensor, shares: Tensor) -> float:
    """How much farther one end of a mean's interval reaches than the other, where its changes are skewed, over 1.96.

    In standard errors the interval is γ(1 + 2z²)/(6√N) ± z, with z = 1.96 and γ the skewness (Johnson 1978, J. Am.
    Stat. Assoc. 73, 536). ± is symmetric and reaches its farther end. `changes` (R,) stand for `shares` of N samples.

    >>> import torch
    >>> skewed(torch.tensor([-1.0, 1.0]), torch.ones(2))
    0.0
    >>> round(skewed(torch.tensor([3.0, -1.0, -1.0, -1.0]), torch.ones(4)), 2)
    0.43
    """
    squares = float(shares @ changes.square())
    cubes = abs(float(shares @ changes**3))
    return (1 + 2 * _Z**2) / (6 * _Z) * cubes / squares**1.5 if squares > 0 else 0.0


def reaching(changes: Tensor, shares: Tensor) -> float:
    """What a standard error is multiplied with for ± 1.96 of it to reach the farther end of both these intervals."""
    return student(shares * changes.square()) + skewed(changes, shares)


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


def interval(low: float, high: float, plain: float | None = None) -> Estimate:
    """The estimate whose value ± 1.96 standard errors are these; their mean where rounding turns their order."""
    return Estimate((low + high) / 2, max(high - low, 0.0) / 3.92, plain=plain)


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2
