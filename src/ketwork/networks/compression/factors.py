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

from ketwork.networks.compression.covariance import Scatter

_METRIC_RIDGE = 1e-3  # of the mean eigenvalue
_RIDGES = range(-7, 1)  # powers of ten, times the largest variance


@dataclass(frozen=True)
class Metric:
    """H = (G + ε)^½ and its inverse, ε = 1e−3 of G's mean eigenvalue.

    `root` (m,) are the eigenvalues of H, `vectors` (m, m) its eigenvectors, None where G is diagonal: less to keep than
    both matrices.
    """

    root: Tensor
    vectors: Tensor | None = None

    @classmethod
    def of(cls, fisher: Tensor) -> Metric:
        """The metric of G, (m, m) or its diagonal (m,)."""
        if fisher.ndim == 1:
            return cls((fisher + _METRIC_RIDGE * fisher.mean()).sqrt())
        values, vectors = torch.linalg.eigh(fisher)
        values = values.clamp(min=0)
        return cls((values + _METRIC_RIDGE * values.mean()).sqrt(), vectors)

    @classmethod
    def none(cls, like: Tensor) -> Metric:
        """H = 1 for a W like this."""
        return cls(like.new_ones(len(like)))

    def times(self, matrix: Tensor) -> Tensor:
        """H matrix."""
        return self._scaled(self.root, matrix)

    def over(self, matrix: Tensor) -> Tensor:
        """H⁻¹ matrix."""
        return self._scaled(_inverse(self.root), matrix)

    def _scaled(self, values: Tensor, matrix: Tensor) -> Tensor:
        if self.vectors is None:
            return values[:, None] * matrix
        return self.vectors @ (values[:, None] * (self.vectors.T @ matrix))


def _inverse(root: Tensor) -> Tensor:
    """1 / root, 0 where G is 0."""
    return torch.where(root > 0, 1 / root, 0.0)


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
        total = self.total
        return self.tail(rank) / total if total > 0 else 0.0

    def cut(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """First factor (r, k), second (m, r) and bias (m,)."""
        second = self.second[:, :rank]
        return self.first[:rank], second, self.target - second @ self.mean_out[:rank]

    @property
    def total(self) -> float:
        """The layer's whole weight: what rank 0 discards."""
        return float(self.weights.sum())


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
    """The factors by the moments of the layer's inputs x. O(min(m, k)³ + m k²)."""
    return truncations(weight, inputs, bias + weight @ inputs.left, metric)


@dataclass(frozen=True)
class Refit:
    """A layer fitted to what the original puts out, from the inputs that the smaller network gives it.

    `dense` (m, k) is the best matrix of full rank, `target` the mean output; `ridge` is the δ that was taken.
    """

    dense: Tensor
    bias: Tensor
    target: Tensor
    ridge: float


@dataclass(frozen=True)
class Pair:
    """What a fit knows of some batches: the moments of x̃, cov(W x, x̃) (m, k), and the mean of W x (m,)."""

    inputs: Scatter
    cross: Tensor
    outputs: Tensor

    def of(self, rows: Tensor) -> Pair:
        """What is known of some of the outputs."""
        return Pair(self.inputs, self.cross[rows], self.outputs[rows])


def refit(weight: Tensor, bias: Tensor, total: Pair, part: Pair, rest: Pair, metric: Metric) -> Refit:
    """Minimises E ‖H (W x + b − W′ x̃ − b′)‖² + δ ‖H (W′ − W)‖².

    V = W + (X − W D)(D + δ)⁻¹, with D the covariance of x̃ and X = cov(W x, x̃). δ is the one, of powers of ten
    times the largest variance, that does best on batches it
    was not fitted to: fitted on `part`, judged on `rest`. O(k³ + m k²).
    """
    ridge = _ridge(weight, part, rest, metric)
    covariance = total.inputs.covariance()
    dense = weight
    if ridge < torch.inf:
        values, vectors = torch.linalg.eigh(covariance)
        missing = (total.cross - weight @ covariance) @ vectors
        dense = weight + missing / (values.clamp(min=0) + ridge) @ vectors.T
    outputs = bias + total.outputs
    return Refit(dense, outputs - dense @ total.inputs.left, outputs, ridge)


def _ridge(weight: Tensor, part: Pair, rest: Pair, metric: Metric) -> float:
    """The δ of least error on `rest` of the fit to `part`; infinite where no correction helps at all."""
    values, vectors = torch.linalg.eigh(part.inputs.covariance())
    values = values.clamp(min=0)
    largest = float(values[-1])
    if largest == 0:
        return torch.inf
    checked = rest.inputs.covariance()
    fitted = metric.times(part.cross - weight @ part.inputs.covariance()) @ vectors
    wanted = metric.times(rest.cross - weight @ checked) @ vectors
    checked = vectors.T @ checked @ vectors
    best, ridge = 0.0, torch.inf
    for power in _RIDGES:
        correction = fitted / (values + 10.0**power * largest)
        error = float(
            (correction * (correction @ checked - 2 * wanted)).sum()
        )  # less what no correction leaves
        if error < best:
            best, ridge = error, 10.0**power * largest
    return ridge


def truncations(weight: Tensor, inputs: Scatter, outputs: Tensor, metric: Metric) -> Factors:
    """The factors of W for inputs with these moments, where `outputs` is the mean that is to come out."""
    weighted = metric.times(weight)
    weights, basis = leading(weighted, inputs.covariance())
    first = basis.T @ weighted
    return Factors(first, metric.over(basis), weights, outputs, first @ inputs.left)


def leading(matrix: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in falling order and eigenvectors of A C Aᵀ, by the smaller side of A (m, k)."""
    m, k = matrix.shape
    basis = None
    if m > k:
        basis, matrix = torch.linalg.qr(matrix)
    product = matrix @ covariance @ matrix.T
    values, vectors = torch.linalg.eigh((product + product.T) / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(-1)
    return values, vectors if basis is None else basis @ vectors
