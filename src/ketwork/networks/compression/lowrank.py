"""One layer's best factors of each rank: truncation to the leading eigenstates of its output's density.

With W m × k, the inputs' covariance C and a metric H² on the output, the factors minimise
E ‖H (W − W′)(x − μ)‖²: U holds the leading eigenvectors of H W C Wᵀ H, W′ = H⁻¹U · UᵀHW. Without a metric
(H = 1) that is W′ = U(UᵀW), the truncation of the output's centred density, and equal to the singular value
decomposition of W C^½. Everything in float64 by symmetric eigendecompositions whose eigenvalues are clamped at
0: no Cholesky factor, no inverse of C, so that dead neurons and constant pixels are no special case.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.compression.scatter import Scatter

_METRIC_RIDGE = 1e-3  # of the mean eigenvalue
_INPUT_RIDGE = 1e-4  # of the mean variance


@dataclass(frozen=True)
class Metric:
    """H = (G + ε)^½ and its inverse, ε = 1e−3 of G's mean eigenvalue; (m, m), or (m,) where G is diagonal."""

    half: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, fisher: Tensor) -> Metric:
        """The metric of G, (m, m) or its diagonal (m,)."""
        if fisher.ndim == 1:
            root = (fisher + _METRIC_RIDGE * fisher.mean()).sqrt()
            return cls(root, 1 / root)
        values, vectors = torch.linalg.eigh(fisher)
        values = values.clamp(min=0)
        root = (values + _METRIC_RIDGE * values.mean()).sqrt()
        return cls((vectors * root) @ vectors.T, (vectors / root) @ vectors.T)

    @classmethod
    def none(cls, like: Tensor) -> Metric:
        """H = 1 for a W like this."""
        one = like.new_ones(len(like))
        return cls(one, one)

    def times(self, matrix: Tensor) -> Tensor:
        """H matrix."""
        return self.half[:, None] * matrix if self.half.ndim == 1 else self.half @ matrix

    def over(self, matrix: Tensor) -> Tensor:
        """H⁻¹ matrix."""
        return self.inverse[:, None] * matrix if self.inverse.ndim == 1 else self.inverse @ matrix


@dataclass(frozen=True)
class Factors:
    """All ranks' factors of one layer: W′ = second[:, :r] first[:r], b′ = target − W′ μ.

    `weights` are the eigenvalues of H W C Wᵀ H in falling order: `tail(r)` is what rank r discards. `target` is the
    mean output, which is kept; `mean_out` is what `first` makes of the mean input.
    """

    first: Tensor  # (R, k)
    second: Tensor  # (m, R)
    weights: Tensor  # (min(m, k),)
    target: Tensor  # (m,)
    mean_out: Tensor  # (R,)

    def tail(self, rank: int) -> float:
        """What the factors of that rank discard: E ‖H (W x − W′ x)‖², both centred."""
        return float(self.weights[rank:].sum())

    def share(self, rank: int) -> float:
        """What they discard as a share of the layer's whole weight; 0 where the layer is constant."""
        whole = float(self.weights.sum())
        return self.tail(rank) / whole if whole > 0 else 0.0

    def cut(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """First factor (r, k), second (m, r) and bias (m,)."""
        second = self.second[:, :rank]
        return self.first[:rank], second, self.target - second @ self.mean_out[:rank]


def from_outputs(weight: Tensor, bias: Tensor, outputs: Scatter, metric: Metric) -> Factors:
    """The factors by the moments of the layer's outputs y = W x + b. O(m³)."""
    covariance = outputs.covariance()
    root = metric.times(metric.times(covariance).T)
    values, vectors = torch.linalg.eigh((root + root.T) / 2)
    basis = vectors.flip(-1)
    first = basis.T @ metric.times(weight)
    mean_out = basis.T @ metric.times((outputs.left - bias)[:, None])[:, 0]
    return Factors(first, metric.over(basis), values.flip(0).clamp(min=0), outputs.left, mean_out)


def from_inputs(weight: Tensor, bias: Tensor, inputs: Scatter, metric: Metric) -> Factors:
    """The factors by the moments of the layer's inputs x. O(k³ + m k²)."""
    values, vectors = torch.linalg.eigh(inputs.covariance())
    root = metric.times(weight @ vectors) * values.clamp(min=0).sqrt()  # H W C^½, but for a rotation
    weights, basis = _leading(root)
    first = basis.T @ metric.times(weight)
    return Factors(first, metric.over(basis), weights, bias + weight @ inputs.left, first @ inputs.left)


@dataclass(frozen=True)
class Refit:
    """A layer fitted to what the original puts out, from the inputs that the smaller network gives it.

    `dense` (m, k) is the best matrix of full rank, `factors` its truncations.
    """

    dense: Tensor
    bias: Tensor
    factors: Factors


def refit(weight: Tensor, inputs: Scatter, cross: Tensor, outputs: Tensor, metric: Metric) -> Refit:
    """Minimises E ‖H (W x + b − W′ x̃ − b′)‖² + δ ‖H (W − W′)‖², δ = 1e−4 of the mean variance of x̃.

    V = (X + δ W)(D + δ)⁻¹ with D the covariance of x̃ (`inputs`) and X = cov(W x, x̃) (`cross`, m × k); U the
    leading eigenvectors of H V (D + δ) Vᵀ H; W′ = H⁻¹U · UᵀHV. `outputs` is the original's mean output. O(k³ + m k²).
    """
    values, vectors = torch.linalg.eigh(inputs.covariance())
    values = values.clamp(min=0)
    ridge = _INPUT_RIDGE * values.mean()
    if ridge == 0:  # constant inputs: W stays
        whitened, scale = weight @ vectors, torch.ones_like(values)
    else:
        scale = (values + ridge).sqrt()
        whitened = ((cross + ridge * weight) @ vectors) / scale  # V (D + δ)^½, but for a rotation
    dense = (whitened / scale) @ vectors.T
    weights, basis = _leading(metric.times(whitened))
    first = basis.T @ metric.times(dense)
    factors = Factors(first, metric.over(basis), weights, outputs, first @ inputs.left)
    return Refit(dense, outputs - dense @ inputs.left, factors)


def _leading(root: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in falling order and eigenvectors of root rootᵀ, by the smaller side of root (m, k)."""
    m, k = root.shape
    if m <= k:
        values, vectors = torch.linalg.eigh(root @ root.T)
        return values.flip(0).clamp(min=0), vectors.flip(-1)
    values, vectors = torch.linalg.eigh(root.T @ root)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(-1)
    # Orthonormal also where eigenvalues vanish: QR of what is spanned, in the order of the eigenvalues.
    basis, triangle = torch.linalg.qr(root @ vectors)
    return values, basis * torch.where(triangle.diagonal() < 0, -1.0, 1.0)
