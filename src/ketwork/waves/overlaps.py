"""Overlaps of waves with waves and kets, from samples of both: unbiased, and precise where the states are close."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.quantum import Ket
from ketwork.waves.observables import Measured, averaged
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.spaces import Space
from ketwork.waves.wave import Wave

OUTSIDE = 1e-8
"""A ket may have so much of its weight outside a space."""


@dataclass(frozen=True, eq=False)
class HeldState:
    """A ket on a space: the amplitudes of all of its configurations, looked up."""

    space: Space
    ket: Ket
    values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.ket.amplitudes.shape != (self.space.levels**self.space.sites,):
            raise ValueError(
                f"A ket must be one vector of {self.space.levels}^{self.space.sites} amplitudes to be held against "
                f"this wave, but has shape {tuple(self.ket.amplitudes.shape)}."
            )
        values = self.ket.amplitudes[self.space.keys]
        values = values.to(torch.complex128 if values.is_complex() else torch.float64)
        inside = float(values.abs().square().sum())
        if inside < 1 - OUTSIDE:
            raise ValueError(
                f"A ket must lie in the wave's space to be held against it, but {1 - inside:.2g} of its weight does "
                "not."
            )
        object.__setattr__(self, "values", values / inside**0.5)

    def amplitudes(self) -> Tensor:
        """The normalised amplitudes on `space.states()` (size,)."""
        return self.values

    def log_amplitude(self, x: Tensor) -> Tensor:
        """log φ of configurations (batch, sites): complex, −∞ where φ is 0."""
        return torch.log(self.values[self.space.index(x.cpu())].to(torch.complex128))

    def all(self) -> Samples:
        """Every configuration of the space, weighed by |φ|²."""
        return Samples(self.space.states()[None], 1.0, self.values[None], self.values.abs().square()[None])

    def sample(self, n_samples: int, generator: torch.Generator) -> Samples:
        """Independent draws from |φ|²."""
        rows = torch.multinomial(self.values.abs().square(), n_samples, True, generator=generator)
        return Samples(self.space.rows(rows)[:, None])


def fidelity(first: Wave, second: Wave | Ket, samples: Samples, other: Samples | None = None) -> Measured:
    """F = |⟨φ|ψ⟩|² of a wave with a wave on the same space or a ket, from samples of each (`samples` of the first).

    With r = φ/ψ on x from |ψ|² and s = ψ/φ on y from |φ|², F = ⟨Re r s⟩, less half of |r s|² − [r ≠ 0][s ≠ 0], whose
    mean is 0: unbiased, and with an error that falls with 1 − F (Sinibaldi, Giuliani, Carleo & Vicentini 2023, DOI
    10.22331/q-2023-10-10-1131, with the indicators for states that vanish where the other does not). Full sums of both
    are exact, and so is a ket without `other`: it is summed over. Cost: one pass of both over both sets of samples.
    States that differ by configurations too rare to be drawn look closer than they are: 1 − F below 1/samples may be
    too small.

    >>> from ketwork.waves import RBM, FullSum, spins
    >>> wave = Wave(RBM(std=0.1), spins(6))
    >>> round(float(fidelity(wave, wave.ket(), FullSum().sample(wave, 1)).value), 6)
    1.0
    """
    target = state_on(first.space, second)
    if other is None and not isinstance(target, HeldState):
        raise ValueError("Argument `other` must be samples of the second wave, but is None.")
    if other is None or (samples.complete and other.complete):
        overlap = (first.amplitudes().conj() * target.amplitudes()).sum()
        return Measured(overlap.abs().square(), torch.zeros(()))
    r, s = ratios(first, target, samples.configurations), ratios(target, first, other.configurations)
    # A common factor drops out of the products; taking it out keeps both in range.
    level = (_level(r) - _level(s)) / 2
    r, s = _powers(r - level), _powers(s + level)
    here, there = averaged(r, samples).value, averaged(s, other).value
    value = (here[0] * there[0]).real - (here[1] * there[1] - here[2] * there[2]).real / 2
    # The first-order influence of each sample on the product of the means.
    mine = (r[..., 0] * there[0] - (r[..., 1] * there[1] - r[..., 2] * there[2]) / 2).real
    theirs = (s[..., 0] * here[0] - (s[..., 1] * here[1] - s[..., 2] * here[2]) / 2).real
    return Measured(value, torch.hypot(averaged(mine, samples).stderr, averaged(theirs, other).stderr))


def state_on(space: Space, state: Wave | Ket) -> Wave | HeldState:
    """A state on a space: a wave that is on it, or a ket that lies in it."""
    if isinstance(state, Ket):
        return HeldState(space, state)
    if state.space != space:
        raise ValueError(f"The waves must be on the same space, but are on {space} and {state.space}.")
    return state


def ratios(below: Wave | HeldState, above: Wave | HeldState, x: Tensor) -> Tensor:
    """log above/below (chains, length), complex, of configurations drawn from |below|²."""
    flat = x.flatten(0, 1)
    one, two = above.log_amplitude(flat), below.log_amplitude(flat)
    return (one.to(torch.complex128) - two.to(torch.complex128)).unflatten(0, x.shape[:2])


def _level(log: Tensor) -> float:
    real = log.real[torch.isfinite(log.real)]
    return float(real.mean()) if len(real) else 0.0


def _powers(log: Tensor) -> Tensor:
    """z, |z|² and whether z is not 0, of log z (chains, length): (chains, length, 3)."""
    seen = log.real > -torch.inf
    z = torch.where(seen, torch.exp(torch.where(seen, log, 0.0)), 0.0)
    return torch.stack([z, z.abs().square() + 0j, seen + 0j], -1)
