"""The 95 % intervals that ± stands for: Student's, where the variance is itself estimated, and between bounds."""

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
