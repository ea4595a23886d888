"""Excited states: an energy for every overlap with lower states, so that what is minimised lies above them.

H + Σᵢ λ |φᵢ⟩⟨φᵢ|/⟨φᵢ|φᵢ⟩ has the lower states φᵢ moved up by λ and all others where they were (Choo, Carleo, Regnault
& Neupert 2018, DOI 10.1103/PhysRevLett.121.167204). Its local value at x is λ·(φ(x)/ψ(x))·⟨φ|ψ⟩/⟨φ|φ⟩, where the
overlap is the mean of ψ(y)/φ(y) over y from |φ|².
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.waves.samplers.sampler import FullSum, Sampler, Samples
from ketwork.waves.wave import Wave

LISTED = 2**14
"""Lower states on spaces up to this size are summed over."""


@dataclass(frozen=True, eq=False)
class Penalty:
    """A lower state, with samples of its own, and the energy λ of an overlap with it."""

    wave: Wave
    samples: Samples
    strength: float

    def values(self, wave: Wave, x: Tensor) -> Tensor:
        """The local values at configurations x (n, sites) of a wave: (n,)."""
        y = self.samples.flat
        ratio = _log(wave, y) - _log(self.wave, y)  # log ψ/φ on the lower state's samples
        top = ratio.real.max()
        if not bool(torch.isfinite(top)):
            return torch.zeros(len(x), dtype=torch.complex128)
        scaled = torch.exp(ratio - top)
        if self.samples.weights is None:
            overlap = scaled.mean()
        else:
            weights = (self.samples.weights / self.samples.weights.sum()).flatten().to(scaled.device)
            overlap = (weights * scaled).sum()
        here = _log(wave, x)
        back = torch.exp(_log(self.wave, x) - here + top)
        # Where ψ is 0 the configuration has no weight.
        return self.strength * overlap * torch.where(torch.isfinite(here.real), back, 0.0)


def drawn_once(lower: Wave, sampler: Sampler, n_samples: int | None, seed: int) -> Samples:
    """Samples of a lower state for a whole run: all its configurations where they are few, else four times as many as
    a step's. A run is kept orthogonal to what they say of it, which leaves an overlap of some 1/(4 n_samples)."""
    if n_samples is None or lower.space.size <= LISTED:
        return FullSum().sample(lower, 1)
    return sampler.sample(lower, 4 * n_samples, seed=seed)


def _log(wave: Wave, x: Tensor) -> Tensor:
    return wave.log_amplitude(x).to(torch.complex128)
