"""Reading labels out of a layer by linear algebra on its moments: nothing is trained.

Both readouts see unit kets x of d features, shifted by m, the mean of the class means (equal priors), in the
eigenvectors of the balanced covariance C = mean over classes of E_k (x−m)(x−m)ᵀ.

*Linear*: ridge regression of the labels' indicators with a constant that is not penalised,
W = (C + λ tr C)⁻¹ Σ_k (μ_k − m) e_kᵀ / K, each class weighing the same; of numbers y likewise.

*Pretty good measurement* (Hausladen & Wootters 1994): the kets pass a filter F = C^(−¼), a local filtering
(Gisin 1996) that does not depend on which label is which, and get a constant amplitude r beside them, a
reference that turns the sign of an activation into a phase that a measurement can see; with y = (F(x−m), r),
M_k = E_k y yᵀ and S their mean, outcome k has the probability ∝ ⟨y|S^(−½) M_k S^(−½)|y⟩ / K.
C in F, S and M_k are mixed with the maximally mixed state. Without the filter the measurement whitens by S^(−½)
alone and falls behind the more samples there are; with F = C^(−½) it would be the linear probe as r grows.

λ and the mixing weight are those that read the check samples with the largest AUC plus balanced accuracy (numbers:
the least squared error) after a fit without them; then all of the fitting part is used. Where the checks cannot
tell (they, or the rest, hold fewer than two labels) and between equals, the first of the strengths below holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.measures.scores import r_squared, worth
from ketwork.networks.moments import ClassMoments, LabelledMoments, Rows, Sums

MOST_DIMENSIONS = 512
"""Readouts use about so many leading dimensions of a layer that has more."""

REFERENCE = 10.0
"""r² over the mean square of the filtered kets: at 1 the measurement reads their squares as much as themselves."""

RIDGES = (1e-3, 1e-2, 1e-4, 1e-1, 1e-5, 1e-6)
MIXINGS = (0.1, 0.3, 1e-2, 0.6, 1e-3)

LINEAR = "linear"
PRETTY_GOOD = "pretty good"
KINDS = (LINEAR, PRETTY_GOOD)
_STRENGTHS = {LINEAR: RIDGES, PRETTY_GOOD: MIXINGS}


def read_out(
    statistics: LabelledMoments,
    fitting: Sums,
    kinds: tuple[str, ...] = KINDS,
    strength: float | None = None,
) -> dict[str, Readout]:
    """The readouts of a layer, solved from `fitting`, the sums that `statistics.fitting()` gave.

    `strength` is λ or the mixing weight; None chooses it by the checks.

    Cost: O(q³) in the q ≤ d dimensions of the kets' span; O(d² q) to find q ≤ 512 dimensions where there are more;
    O(q R) a check sample and strength, with R the rows of all class factors, or K q.
    """
    basis, outside = _basis(fitting.moments)
    solved = Fit.from_sums(fitting, basis, outside)
    if strength is not None:
        return {kind: Readout(kind, strength, solved) for kind in kinds}
    checks, rest = statistics.checks, statistics.sums
    there = rest.moments.present.sum() if fitting.cross is None else rest.moments.counts.sum()
    if len(checks) == 0 or int(there) < 2:
        return {kind: Readout(kind, _STRENGTHS[kind][0], solved) for kind in kinds}
    trial = Fit.from_sums(rest, basis, outside)
    points = trial.points(checks.kets)
    readouts = {}
    for kind in kinds:
        worth = {s: _worth(trial.scores(kind, s, points), checks) for s in _STRENGTHS[kind]}
        readouts[kind] = Readout(kind, max(worth, key=worth.__getitem__), solved)
    return readouts


@dataclass(frozen=True)
class Readout:
    """A solved readout; `strength` was chosen or given."""

    kind: str
    strength: float
    fit: Fit

    def scores(self, kets: Tensor) -> Tensor:
        """Scores of the labels for real unit kets (n, d), (n, K), the largest at the label read.

        Those of the pretty good measurement are outcome probabilities; those of the linear one estimate the
        labels' indicators, with sum 1, and need not lie in 0 … 1 (of numbers they are the numbers).
        """
        return self.fit.scores(self.kind, self.strength, self.fit.points(kets))


@dataclass(frozen=True)
class Fit:
    """What both readouts are solved from: C = V diag(values) Vᵀ about `mean`, and the targets' covariance with x.

    `level` (K,) and `cross` (K, q) are the mean of the targets and their covariance with the coordinates. In the
    dimensions `outside` of the basis C is 0, since no ket of the sums has a part there.
    """

    moments: ClassMoments
    basis: Tensor | None
    mean: Tensor
    values: Tensor
    vectors: Tensor
    level: Tensor
    cross: Tensor
    outside: int = 0

    @classmethod
    def from_sums(cls, sums: Sums, basis: Tensor | None, outside: int = 0) -> Fit:
        """Solves for V and the targets' covariance. Cost O(q³)."""
        moments = sums.moments if basis is None else sums.moments.mapped(basis)
        mean, covariance = moments.balanced()
        values, vectors = torch.linalg.eigh(covariance)
        if sums.cross is None or sums.level is None:
            level = moments.present.double() / moments.present.sum()
            cross = (moments.means - mean) * level[:, None]
        else:
            n = moments.counts.sum()
            level = sums.level / n
            cross = (sums.cross if basis is None else sums.cross @ basis) / n - torch.outer(level, mean)
        return cls(moments, basis, mean, values.clamp(min=0), vectors, level, cross @ vectors, outside)

    def points(self, kets: Tensor) -> Tensor:
        """The coordinates of kets (n, d) in V, about the mean, (n, q); and the length of what is outside, if any."""
        x = kets.to(self.mean)
        inside = x if self.basis is None else x @ self.basis
        points = (inside - self.mean) @ self.vectors
        if not self.outside or self.basis is None:
            return points
        beyond = torch.linalg.vector_norm(x - inside @ self.basis.T, dim=1, keepdim=True)
        return torch.cat([points, beyond], dim=1)

    def scores(self, kind: str, strength: float, points: Tensor) -> Tensor:
        """The readout of that kind and strength at these `points`, (n, K)."""
        return (self.linear if kind == LINEAR else self.pretty_good)(strength, points)

    def linear(self, ridge: float, points: Tensor) -> Tensor:
        """ȳ + Cov(y, x)(C + λ tr C)⁻¹(x − m)."""
        slopes = self.cross / (self.values + ridge * self.values.sum().clamp(min=_TINY))
        return self.level + points[:, : len(self.values)] @ slopes.T

    def pretty_good(self, mixing: float, points: Tensor, reference: float = REFERENCE) -> Tensor:
        """Outcome probabilities of the kets (F(x − m), r), with r² over the mean square of the filtered kets."""
        q, dimensions = len(self.values), len(self.values) + self.outside
        values = torch.nn.functional.pad(self.values, (0, points.shape[1] - q))  # 0 outside
        mixed = (1 - mixing) * values + mixing * self.values.sum() / dimensions
        filtering = mixed.clamp(min=_TINY) ** -0.25
        filtered = values * filtering.square()
        square = reference * filtered.sum().clamp(min=_TINY)
        spectrum = torch.cat([filtered, square[None]])
        size = dimensions + 1
        scale = ((1 - mixing) * spectrum / spectrum.sum() + mixing / size).rsqrt()
        kets = torch.nn.functional.pad(points * filtering, (0, 1), value=float(square.sqrt()))
        rotated = kets * scale / torch.linalg.vector_norm(kets, dim=1, keepdim=True)
        # ⟨rotated|M_k|rotated⟩ from the moments about the origin: x − m = x less m, and r beside it.
        vectors = (rotated[:, :q] * filtering[:q]) @ self.vectors.T
        shift = rotated[:, -1:] * square.sqrt() - vectors @ self.mean[:, None]
        weights = self.moments.read(vectors) + 2 * shift * (vectors @ self.moments.means.T) + shift.square()
        weights = (1 - mixing) * weights / spectrum.sum() + mixing / size * rotated.square().sum(
            1, keepdim=True
        )
        return weights.clamp(min=0) * self.moments.present / self.moments.present.sum()


_TINY = 1e-300


def _worth(scores: Tensor, checks: Rows) -> float:
    classes = checks.targets.ndim == 1
    total = worth(scores, checks.targets) if classes else r_squared(scores, checks.targets).value
    return -math.inf if math.isnan(total) else total


def _basis(moments: ClassMoments) -> tuple[Tensor | None, int]:
    """An orthonormal basis (d, q) for the readouts, None for all of the layer, and how many dimensions are outside.

    Of fewer kets than dimensions it is that of their span, so that nothing is lost; else the leading dimensions of a
    layer that has more than `MOST_DIMENSIONS`, and what is outside of those is not read.
    """
    few = min(moments.d - 1, MOST_DIMENSIONS)
    if moments.dense is None and not moments.discarded and 0 < len(moments.rows) <= few:
        basis = torch.linalg.qr(moments.rows.T.double()).Q
        return basis, moments.d - basis.shape[1]
    return (_leading(moments) if moments.d > MOST_DIMENSIONS else None), 0


def _leading(moments: ClassMoments) -> Tensor:
    """An orthonormal basis (d, q) of about the leading dimensions of C: two steps of subspace iteration."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(moments.d, MOST_DIMENSIONS, generator=generator).to(moments.sums.device)
    return torch.linalg.qr(moments.spread(torch.linalg.qr(moments.spread(start)).Q)).Q.double()
