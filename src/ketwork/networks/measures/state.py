"""`LayerState`: what every measure of a layer is computed from, decomposed once and shared by all.

Standard errors are those of the sampling of data: the influence function of each number (its first-order
change when one more vector enters the mean) is evaluated on the reservoir's vectors and summed over each sample,
since positions of one sample are not independent; the variance of these sums over samples gives the error. What is
not linear in the state has more to it, see `deletion` and `correction`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.measures.quadrature import WIDE, Quadrature
from ketwork.networks.measures.sample import Sample
from ketwork.networks.measures.sketch_bounds import Known
from ketwork.networks.moments import LayerAccumulator
from ketwork.quantum import Density

_NOTHING = 1e-12
_ROUNDING = 4  # units in the last place by which sums of products of kets may be off

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Shared:
    """A state that several measures are computed from: what they have in common is computed once."""

    _known: dict[Any, Any] = field(default_factory=dict, kw_only=True, repr=False)

    def shared(self, compute: Callable[[Any], Result]) -> Result:
        """`compute(self)`, of which the result is kept for the next measure."""
        if compute not in self._known:
            self._known[compute] = compute(self)
        return self._known[compute]


@dataclass(frozen=True, eq=False)
class LayerState(Shared):
    """A layer's state ρ = Σ w|ψ⟩⟨ψ| / Σ w, with its eigenstates and the vectors that show how sure it is.

    With `center`, ρ is the covariance of the vectors √w ψ over its trace. Zero vectors have no direction: they are no
    kets. But they are activations, so that the covariance of these ("ensemble") counts them, as a principal component
    analysis does. Of a sketched moment ρ is the state of what the sketch holds, and `known` says how far the layer's
    may be from it. A wide state that is no sum of few vectors is not decomposed, unless `exact`: `known` estimates it.
    """

    accumulator: LayerAccumulator
    normalize: str
    center: bool = False
    exact: bool = False

    @cached_property
    def density(self) -> Density | None:
        """ρ in float64 (complex128), factored while fewer than d/2 vectors have been seen.

        None where there is no state: every activation is a zero vector, or centring leaves nothing since all are equal.
        """
        moment = self.accumulator.moment
        if moment.weight == 0:
            return None
        factor, mean = moment.factor(), self.mean
        if factor is not None:
            if self.center and moment.rows is None:
                factor = _less(factor, mean.conj() * math.sqrt(self.count))
            elif self.center:
                factor = factor - mean.conj()
                if self.zeros:
                    factor = torch.cat([factor, mean.conj()[None] * math.sqrt(self.zeros)])
            length = torch.linalg.matrix_norm(factor)
            return Density.from_factor(factor / length) if length**2 > _NOTHING * moment.weight else None
        matrix = moment.matrix()
        if self.center:
            matrix = matrix - self.count * torch.outer(mean, mean.conj())
        matrix = matrix / moment.weight
        trace = matrix.diagonal().real.sum()
        return Density(matrix / trace, False, (moment.d,)) if trace > _NOTHING else None

    @property
    def zeros(self) -> int:
        """Zero vectors that are vectors of this state: those of a covariance of activations."""
        return self.accumulator.zeros if self.center and self.normalize == "ensemble" else 0

    @property
    def count(self) -> int:
        """The number of vectors of this state."""
        return self.accumulator.moment.n + self.zeros

    @property
    def mean(self) -> Tensor:
        """The mean of the vectors √w ψ, (d,), in 64 bits a number."""
        return self.accumulator.moment.first / self.count

    @cached_property
    def inside(self) -> Tensor | None:
        """ρ up to its trace in the coordinates of the span that its moment is kept in, (r, r), if it is."""
        moment = self.accumulator.moment
        if moment.ranged is None:
            return None
        matrix = moment.ranged.matrix
        if self.center:
            mean = moment.ranged.states.to(self.mean) @ self.mean
            matrix = matrix - self.count * torch.outer(mean, mean.conj())
        return matrix / moment.weight

    @cached_property
    def exists(self) -> bool:
        """Whether there is a state."""
        if self.inside is not None:
            return bool(self.inside.diagonal().real.sum() > _NOTHING)
        return self.density is not None

    @cached_property
    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues, the largest first, and states (r, d), or their coordinates (r, r) where `inside` has these."""
        if self.inside is not None and self.quadrature is None:
            values, vectors = torch.linalg.eigh(self.inside)
            values = values.flip(-1).clamp(min=0)
            return values / values.sum(), vectors.flip(-1).mT
        rho = self.density
        assert rho is not None
        if self.quadrature is not None:
            return self.quadrature.values, self.quadrature.states
        values, states = rho.eigenstates(min(rho.data.shape[-2:]))
        return values.clamp(min=0), states.amplitudes

    @property
    def decomposed(self) -> bool:
        """Whether its eigenstates are known, so that they cost nothing."""
        return "_eigen" in self.__dict__

    @cached_property
    def eigenstates(self) -> Tensor:
        """The eigenstates that the moment holds, (r, d), those of the largest eigenvalues first. Cost O(d³) at most."""
        return self.first_states(self.held)

    def first_states(self, most: int) -> Tensor:
        """At most so many of the eigenstates, (k, d). Cost O(k r d) where they are held in coordinates."""
        states = self._eigen[1][:most]
        return states if self._span is None else states @ self._span.conj().to(states)

    @property
    def held(self) -> int:
        """How many eigenstates the moment holds."""
        return len(self._eigen[1])

    @property
    def _span(self) -> Tensor | None:
        """The states (r, d) that `_eigen` has coordinates on; None where it has the eigenstates themselves."""
        ranged = self.accumulator.moment.ranged
        return None if ranged is None or self.quadrature is not None else ranged.states

    @cached_property
    def quadrature(self) -> Quadrature | None:
        """What is estimated of a wide state; None of one that is decomposed."""
        if self.exact or self.accumulator.moment.sketch is not None:
            return None
        if self.inside is not None and len(self.inside) <= WIDE:
            return None
        rho = self.density
        if rho is None or min(rho.data.shape) <= WIDE:
            return None
        return Quadrature.from_factor(rho.data) if rho.factored else Quadrature.from_matrix(rho.data)

    @cached_property
    def known(self) -> Known | Quadrature | None:
        """What is certain of ρ's eigenvalues where the moment is a sketch, or estimated of a wide state; else None."""
        moment = self.accumulator.moment
        if moment.sketch is None:
            return self.quadrature
        trace = float(self._diagonal.sum())
        rows = moment.sketch.rows
        if self.center:  # what `density` kept of the sketch less the mean
            rows = _less(rows, self.mean.conj() * math.sqrt(self.count))
        held = float(rows.abs().square().sum())
        rounding = _ROUNDING * torch.finfo(self.accumulator.reservoir.kets.real.dtype).eps
        rank = min(self.count - self.center, moment.d)
        return Known(self._eigen[0] * (held / trace), self.slack, rank, rounding)

    @property
    def slack(self) -> float:
        """The most by which what a sketch keeps of ρ falls short of ρ in any direction; 0 where the moment is exact."""
        moment = self.accumulator.moment
        if moment.sketch is None:
            return 0.0
        trace = float(self._diagonal.sum())
        return moment.slack / trace if trace > 0 else 0.0

    @cached_property
    def spectrum(self) -> Tensor:
        """The eigenvalues of ρ, the largest first; of a sketch the middle of what they may be."""
        return self._eigen[0] if self.known is None else self.known.middle

    @cached_property
    def populations(self) -> Tensor:
        """The diagonal of ρ in the basis of neurons, (d,), exact in every form."""
        diagonal = self._diagonal.clamp(min=0)
        return diagonal / diagonal.sum()

    @cached_property
    def purity(self) -> float:
        """Tr ρ²; of a sketch that of the middle of what it may be."""
        return self.quadrature.square if self.quadrature else float(self.spectrum.square().sum())

    @cached_property
    def elsewhere(self) -> float:
        """The eigenvalue of each state that is not held, ⟨ψ|ρ|ψ⟩ of a vector there; 0 where all are held."""
        if self.quadrature is not None:
            return self.quadrature.value_elsewhere
        r = self.held
        return float(self.spectrum[r]) if len(self.spectrum) > r else 0.0

    @cached_property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues of the states in `eigenstates`, (r,)."""
        r, values = self.held, self.spectrum
        return values[:r] if len(values) >= r else torch.nn.functional.pad(values, (0, r - len(values)))

    @cached_property
    def sample(self) -> Sample:
        """The reservoir's vectors as this state weighs them."""
        return Sample.from_accumulator(
            self.accumulator, self.normalize, self.mean if self.center else None, self.zeros
        )

    @cached_property
    def plain_sample(self) -> Sample:
        """The reservoir's vectors, each of weight 1."""
        return Sample.from_accumulator(self.accumulator, "state")

    @cached_property
    def amplitudes(self) -> Tensor:
        """⟨v|ψ⟩ of each kept vector ψ on each eigenstate v, (R, P, r)."""
        if self._span is None:
            return self.sample.amplitudes_on(self.eigenstates)
        coordinates = self.sample.amplitudes_on(self._span.conj())
        return coordinates @ self._eigen[1].mH.to(coordinates)

    @cached_property
    def weights(self) -> Tensor:
        """|⟨v|ψ⟩|² of each kept vector ψ on each eigenstate v, (R, P, r)."""
        return self.amplitudes.abs().square().double()

    @cached_property
    def outside(self) -> Tensor:
        """The weight of each kept vector outside of the eigenstates that are held, (R, P)."""
        if not self.elsewhere:
            return torch.zeros_like(self.weights[..., 0])
        return (1 - self.weights.sum(dim=-1)).clamp(min=0)

    @cached_property
    def surprisal(self) -> Tensor:
        """−⟨ψ|log₂ ρ|ψ⟩ of each kept vector, (R, P), of which the entropy is the mean."""
        logs = torch.where(self.eigenvalues > 0, self.eigenvalues, 1.0).log2()
        beyond = -math.log2(self.elsewhere) if self.elsewhere else 0.0
        if self.quadrature is not None:
            beyond = self.quadrature.surprisal_elsewhere
        return -(self.weights @ logs) + self.outside * beyond

    @cached_property
    def _diagonal(self) -> Tensor:
        moment = self.accumulator.moment
        diagonal = moment.diagonal().double()  # a file may hold it in fewer bits
        return diagonal - self.count * self.mean.abs().square() if self.center else diagonal


def _less(rows: Tensor, row: Tensor) -> Tensor:
    """A factor of the positive part of R†R − r†r, for rows R (n, d) and a row r (d,). Cost O(n² d)."""
    both = torch.cat([rows, row[None]])
    values, vectors = torch.linalg.eigh(both @ both.mH)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = vectors[:, kept] * values[kept].sqrt().to(vectors)  # both = root Q with orthonormal rows Q
    signs = torch.ones_like(values)
    signs[-1] = -1
    shares, turn = torch.linalg.eigh((root.mH * signs.to(root)) @ root)
    positive = shares > 0
    inverse = vectors[:, kept] / values[kept].sqrt().to(vectors)
    return (turn[:, positive] * shares[positive].sqrt().to(turn)).mH @ (inverse.mH @ both)
