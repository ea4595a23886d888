"""Reading labels out of a layer by linear algebra on its moments: nothing is trained.

Both readouts see unit kets x of d features, shifted to the origin m, the mean of the class means (equal
priors), in the leading eigenvectors of the balanced covariance C = mean over classes of E_k (x−m)(x−m)ᵀ.

*Linear*: ridge regression of the labels' indicators with a constant that is not penalised,
W = (C + λ tr C)⁻¹ Σ_k (μ_k − m) e_kᵀ / K, each class weighing the same.

*Pretty good measurement* (Hausladen & Wootters 1994): the kets get a constant amplitude r beside them, a
reference that turns the sign of an activation into a phase that a measurement can see; with
M_k = E_k (x−m, r)(x−m, r)ᵀ and S their mean, outcome k has the probability ∝ ⟨x|S^(−½) M_k S^(−½)|x⟩.
S is mixed with the maximally mixed state, M_k likewise.

λ and the mixing weight are those that read the check samples with the largest AUC after a fit without them;
then all of the fitting part is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.labelled import LabelledStatistics
from ketwork.networks.moments import Moment
from ketwork.networks.scores import macro_auc

MOST_DIMENSIONS = 512
"""Readouts use at most so many leading dimensions of a layer."""

REFERENCE = 10.0
"""r² over the mean square of the shifted kets: at 1 the measurement reads their squares as much as themselves."""

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
MIXINGS = (1e-3, 1e-2, 1e-1, 0.3, 0.6)


@dataclass(frozen=True)
class Readout:
    """A solved readout: `scores(kets)` gives (n, K), the largest at the label read; `strength` was chosen.

    The scores of the pretty good measurement are outcome probabilities; those of the linear one estimate
    the labels' indicators and need not lie in 0 … 1.
    """

    kind: str
    strength: float
    scores: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Classes:
    """Class moments in the reduced space: second moments about the origin as signed rows.

    counts (K,), means (K, q) relative to the origin, rows (R, q) with signs (R,) and owners (R,):
    n_k E_k zzᵀ = Σ over the rows of class k of sign · row rowᵀ.
    """

    counts: Tensor
    means: Tensor
    rows: Tensor
    signs: Tensor
    owners: Tensor

    def without(self, z: Tensor, codes: Tensor) -> _Classes:
        """The same with rows z (n, q) of those classes taken out."""
        k = len(self.counts)
        left = (self.counts - torch.bincount(codes, minlength=k)).clamp(min=0)
        sums = (self.means * self.counts[:, None]).index_add(0, codes, -z)
        return _Classes(
            left,
            sums / left.clamp(min=1)[:, None],
            torch.cat([self.rows, z]),
            torch.cat([self.signs, -torch.ones_like(z[:, 0])]),
            torch.cat([self.owners, codes]),
        )

    def covariance(self) -> tuple[Tensor, Tensor]:
        """The balanced mean of the present classes (q,), and the balanced covariance about it (q, q)."""
        present = self.counts > 0
        mean = self.means[present].mean(dim=0)
        weight = (self.signs / self.counts.clamp(min=1)[self.owners] / present.sum()) * present[self.owners]
        c = (self.rows * weight[:, None]).T @ self.rows - torch.outer(mean, mean)
        return mean, (c + c.T) / 2


def read_out(statistics: LabelledStatistics, classes: int) -> dict[str, Readout]:
    """Both readouts of a layer for labels 0 … classes − 1, of which the fitting part holds at least two.

    Cost: O(d³ + R q n) with R rows in all classes, n check samples and q ≤ 512 dimensions.
    """
    space, moments = _reduce(statistics.classes, classes)
    checks = statistics.checks
    z, codes = space(checks.kets), checks.targets
    fewer = moments.without(z, codes) if len(checks) else moments
    found = {}
    for kind, fit, strengths in (("linear", _linear, RIDGES), ("pretty good", _pretty_good, MIXINGS)):
        trial = fit(fewer)
        best = max(strengths, key=lambda s, trial=trial: macro_auc(trial(s)(z), codes).value)  # type: ignore[misc]
        solved = fit(moments)(best)
        found[kind] = Readout(kind, best, lambda kets, solved=solved: solved(space(kets)))  # type: ignore[misc]
    return found


def regress(statistics: LabelledStatistics) -> Readout:
    """The linear readout of numbers (n, m): ridge with a free constant, λ by squared error on the checks."""
    assert statistics.cross is not None
    assert statistics.sums is not None
    moment, checks = statistics.classes[0], statistics.checks
    n = moment.n
    mean = moment.first / n
    basis = _leading(moment.matrix() / n - torch.outer(mean, mean))
    z, y = (checks.kets.double() - mean) @ basis, checks.targets
    second = basis.T @ moment.matrix() @ basis - n * torch.outer(mean @ basis, mean @ basis)
    cross = statistics.cross @ basis - torch.outer(statistics.sums[0], mean @ basis)

    def fit(count: int, total: Tensor, first: Tensor, c: Tensor, xy: Tensor) -> Callable[[float], Callable]:
        center, level = first / count, total / count
        values, vectors = torch.linalg.eigh(c / count - torch.outer(center, center))
        target = (xy / count - torch.outer(level, center)) @ vectors

        def at(strength: float) -> Callable[[Tensor], Tensor]:
            slope = target / (values.clamp(min=0) + strength * values.sum().clamp(min=1e-300))
            return lambda points: level + ((points - center) @ vectors) @ slope.T

        return at

    nothing = torch.zeros_like(mean @ basis)
    best = RIDGES[3]
    if 0 < len(checks) < n:
        trial = fit(n - len(z), statistics.sums[0] - y.sum(0), -z.sum(0), second - z.T @ z, cross - y.T @ z)
        best = min(RIDGES, key=lambda s: float((trial(s)(z) - y).square().sum()))
    solved = fit(n, statistics.sums[0], nothing, second, cross)(best)
    return Readout("linear", best, lambda kets: solved((kets.double() - mean) @ basis))


def _linear(classes: _Classes) -> Callable[[float], Callable[[Tensor], Tensor]]:
    mean, c = classes.covariance()
    values, vectors = torch.linalg.eigh(c)
    values = values.clamp(min=0)
    k = len(classes.counts)
    present = classes.counts > 0
    apart = torch.where(present[:, None], classes.means - mean, 0.0) @ vectors  # (K, q)

    def at(strength: float) -> Callable[[Tensor], Tensor]:
        weights = apart / (values + strength * values.sum()) / k
        return lambda z: 1 / k + ((z - mean) @ vectors) @ weights.T

    return at


def _pretty_good(classes: _Classes) -> Callable[[float], Callable[[Tensor], Tensor]]:
    mean, c = classes.covariance()
    values, vectors = torch.linalg.eigh(c)
    values = values.clamp(min=0)
    square = REFERENCE * values.sum()
    k, present = len(classes.counts), classes.counts > 0
    counts = classes.counts.clamp(min=1)
    # About the balanced mean: Σ ± row rowᵀ − n μ'μ'ᵀ + n (μ'−mean)(μ'−mean)ᵀ, and the reference beside the last.
    rows, means = classes.rows @ vectors, classes.means @ vectors
    shifted = means - mean @ vectors
    size = len(values) + 1
    whole = values.sum() + square
    average = torch.cat([values, square[None]]) / whole

    def at(mixing: float) -> Callable[[Tensor], Tensor]:
        scale = ((1 - mixing) * average + mixing / size).rsqrt()

        def scores(z: Tensor) -> Tensor:
            kets = torch.nn.functional.pad((z - mean) @ vectors, (0, 1), value=float(square.sqrt())) * scale
            kets = kets / torch.linalg.vector_norm(kets / scale, dim=1, keepdim=True)
            points = kets[:, :-1]
            total = kets.new_zeros(len(kets), k)
            for start in range(0, len(rows), _CHUNK):
                part = slice(start, start + _CHUNK)
                total.index_add_(
                    1, classes.owners[part], (points @ rows[part].T).square() * classes.signs[part]
                )
            total -= counts * (points @ means.T).square()
            total += counts * (points @ shifted.T + kets[:, -1:] * square.sqrt()).square()
            weights = (1 - mixing) * total / counts / whole + mixing / size * kets.square().sum(
                1, keepdim=True
            )
            return torch.where(present, weights, 0.0).clamp(min=0) / present.sum()

        return scores

    return at


_CHUNK = 4096


def _reduce(classes: dict[int, Moment], k: int) -> tuple[Callable[[Tensor], Tensor], _Classes]:
    """A map of kets to the reduced space, and the class moments there."""
    origin = torch.stack([moment.first / moment.n for moment in classes.values()]).mean(dim=0)
    basis = _leading(_balanced_covariance(classes, origin))
    counts = origin.new_zeros(k)
    means = origin.new_zeros(k, basis.shape[1])
    rows, signs, owners = [], [], []
    for code, moment in classes.items():
        counts[code] = moment.n
        shift = moment.first / moment.n - origin
        means[code] = shift @ basis
        factor = moment.factor()
        if factor is not None:
            found = (factor - origin) @ basis
        else:
            second = moment.matrix() - moment.n * (
                torch.outer(origin, origin + shift) + torch.outer(shift, origin)
            )
            values, vectors = torch.linalg.eigh(basis.T @ second @ basis)
            found = (vectors * values.clamp(min=0).sqrt()).T
        rows.append(found)
        signs.append(torch.ones_like(found[:, 0]))
        owners.append(torch.full((len(found),), code, device=origin.device))
    return (
        lambda kets: (kets.to(basis.dtype) - origin) @ basis,
        _Classes(counts, means, torch.cat(rows), torch.cat(signs), torch.cat(owners)),
    )


def _balanced_covariance(classes: dict[int, Moment], origin: Tensor) -> Tensor:
    second = sum(moment.matrix() / moment.n for moment in classes.values()) / len(classes)
    assert isinstance(second, Tensor)
    return second - torch.outer(origin, origin)


def _leading(covariance: Tensor) -> Tensor:
    """Eigenvectors (d, q) of all but negligible eigenvalues, the leading ones where they are many."""
    values, vectors = torch.linalg.eigh(covariance)
    keep = values > 1e-12 * values[-1].clamp(min=1e-300)
    return vectors[:, keep][:, -MOST_DIMENSIONS:]
