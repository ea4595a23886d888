"""How much of a covariance is noise of the sampling, from its own moments and with no number chosen by hand.

Ledoit & Wolf (2004, doi:10.1016/S0047-259X(03)00096-4) mix a covariance with the maximally mixed state of its trace,
by the weight that is nearest to the true one in the mean square. That takes Σ ‖z‖⁴ beside the covariance, which sums of
unit kets have: with ‖x‖ = 1 it is a polynomial of second moments.
Marchenko & Pastur (1967) give the largest eigenvalue of pure noise; what lies above it is signal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.moments import ClassMoments

_NOTHING = 1e-10  # of the largest eigenvalue
_GRID = 4001


@dataclass(frozen=True)
class Covariance:
    """E z z† of n vectors z, (d, d), in float64 or complex128, and `fourth`, E ‖z‖⁴."""

    matrix: Tensor
    fourth: float
    n: int

    @property
    def mean(self) -> float:
        """The mean eigenvalue."""
        return float(self.matrix.diagonal().real.mean())

    @property
    def shrinkage(self) -> float:
        """The weight of the maximally mixed state, by Ledoit and Wolf, between 0 and 1."""
        square = float(self.matrix.abs().square().sum())
        spread = square - len(self.matrix) * self.mean**2
        noise = (self.fourth - square) / max(self.n, 1)
        return 0.0 if noise <= 0 else min(1.0, noise / spread) if spread > 0 else 1.0

    def eigen(self) -> tuple[Tensor, Tensor]:
        """Its eigenvalues, the largest first, and eigenvectors in columns. Cost O(d³)."""
        values, vectors = torch.linalg.eigh(self.matrix)
        return values.flip(0).clamp(min=0), vectors.flip(1)

    def shrunk(self) -> Tensor:
        """The covariance mixed with the maximally mixed state of its trace, (d, d)."""
        weight = self.shrinkage
        identity = torch.eye(len(self.matrix)).to(self.matrix)
        return (1 - weight) * self.matrix + weight * self.mean * identity


def whitening(covariance: Tensor) -> Tensor:
    """W (d, d) with W Wᵀ the inverse of a covariance: ‖z W‖² is a squared Mahalanobis distance. Cost O(d³)."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=_NOTHING * float(values[-1])).rsqrt()


def within_classes(moments: ClassMoments) -> Covariance:
    """The covariance that all classes share: of unit kets x, each less its class's mean.

    ‖x − μ‖² = a − 2 xᵀμ with a = 1 + ‖μ‖², so that Σ ‖x − μ‖⁴ = Σ_k n_k a² − 4 a n_k ‖μ_k‖² + 4 μ_kᵀ(Σ x xᵀ)μ_k.
    """
    counts, means = moments.counts, moments.means
    n = float(counts.sum())
    squares = means.square().sum(dim=1)
    a = 1 + squares
    fourth = (counts * (a.square() - 4 * a * squares) + 4 * moments.along_means()).sum() / n
    matrix = moments.summed() / n - (means * counts[:, None]).T @ means / n
    return Covariance(matrix, float(fourth), round(n))


def between_classes(moments: ClassMoments) -> Tensor:
    """The covariance of the class means about the common mean, each weighing as its class has kets, (d, d)."""
    n = float(moments.counts.sum())
    rest = (moments.means - moments.sums.sum(dim=0) / n) * moments.counts[:, None].sqrt()
    return rest.T @ rest / n


def about_zero(matrix: Tensor, n: int) -> Covariance:
    """The state ρ of n independent unit kets as a covariance: E ‖x‖⁴ = 1, so its purity alone says how noisy it is."""
    return Covariance(matrix, 1.0, n)


def edge(values: Tensor, n: int) -> float:
    """The largest eigenvalue of noise alone, σ²(1 + √β)², for eigenvalues of n vectors.

    β is the number of eigenvalues that are not 0 over n; σ² is such that the law's median is theirs, as noise is most
    of them.

    >>> edge(torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0]), 10**9)
    1.000...
    """
    present = values[values > _NOTHING * values.max()]
    ratio = min(1.0, len(present) / max(n, 1))
    noise = float(present.median()) / marchenko_pastur_median(ratio)
    return noise * (1 + math.sqrt(ratio)) ** 2


def marchenko_pastur_median(ratio: float) -> float:
    """The median eigenvalue of the covariance of white noise of variance 1, for `ratio` = d/n in (0, 1].

    The density is √((b − x)(x − a))/(2π ratio x) on (a, b) = (1 ∓ √ratio)²; with x = 1 + ratio − 2 √ratio cos θ its
    integrand is smooth.
    """
    angle = torch.linspace(0, math.pi, _GRID, dtype=torch.float64)
    x = 1 + ratio - 2 * math.sqrt(ratio) * angle.cos()
    density = torch.where(x > 0, angle.sin().square() / x.clamp(min=1e-300), 1 / ratio if ratio == 1 else 0.0)
    total = torch.cumulative_trapezoid(density, angle)
    middle = int(torch.searchsorted(total, total[-1] / 2))
    return float(x[middle + 1])
