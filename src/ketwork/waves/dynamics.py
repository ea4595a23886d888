"""Time evolution of a wave by projected variational dynamics: the equation of motion, seen through the network.

Each instant, the parameters move so that the state moves as closely as it can to −iH|ψ⟩dt (real time) or
−H|ψ⟩dt (imaginary time), in the Fubini–Study distance (McLachlan 1964; Carleo et al. 2012, DOI
10.1038/srep00243).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._compat import renamed
from ketwork.quantum import generator_from
from ketwork.waves.estimates import Expectation
from ketwork.waves.local_energy import check_same_space
from ketwork.waves.objectives import local_of
from ketwork.waves.operators import Operator
from ketwork.waves.reconfiguration import centered, without_nodes
from ketwork.waves.run import default_sampler
from ketwork.waves.samplers.sampler import FullSum, Sampler
from ketwork.waves.structure import check_closed
from ketwork.waves.wave import Wave

NOISE = 0.5
"""On samples, a direction moves in full where its force is above so many of its standard errors."""

SHORTEST = 1e-6
"""The shortest step, over the time to go through."""


@dataclass(frozen=True)
class Evolution:
    """What an evolution went through, one entry a step.

    Args:
        times: at the end of each step.
        energies: before each step, on its samples.
        errors: the estimated error of each step, an angle between states in radians; NaN for steps of a fixed length.
        residuals: the share of √σ² that no direction of the network follows, before each step: 0 where it can follow
            exactly, 1 where it cannot move at all.
        rejected: steps that were tried and were too long.
    """

    times: tuple[float, ...]
    energies: tuple[Expectation, ...]
    errors: tuple[float, ...]
    residuals: tuple[float, ...]
    rejected: int


@renamed(callback="on_step")
def evolve(
    operator: Operator,
    wave: Wave,
    time: float,
    *,
    steps: int | None = None,
    tolerance: float | None = None,
    n_samples: int | None = None,
    sampler: Sampler | None = None,
    seed: int | torch.Generator = 0,
    imaginary: bool = False,
    cutoff: float = 1e-9,
    on_step: Callable[[float, Wave], None] | None = None,
) -> Evolution:
    """Moves `wave` in place through `time`, by full sums or on samples, and returns what it went through.

    With S = ⟨O†O⟩ and F = ⟨O†E⟩, centred: S θ̇ = −iF for holomorphic parameters, Re S θ̇ = Im F for real
    ones; in imaginary time S θ̇ = −F and Re S θ̇ = −Re F. Real time needs a complex wave. Use double precision.

    Args:
        operator: a Hermitian operator that keeps to its space.
        wave: the wave.
        time: how long; ħ = 1.
        steps: so many Runge–Kutta steps of fourth order, of one length.
        tolerance: in place of `steps`: steps of third order (Bogacki & Shampine 1989) as long as their error, estimated
            by the embedded second order and measured as √(δ†Sδ), the angle between the states in radians, is at most
            this.
        n_samples: configurations drawn for each velocity (four of them a step); None sums over all.
        sampler: another way to draw.
        seed: what chains are drawn by.
        imaginary: whether time is imaginary.
        cutoff: directions in which S is below this times its largest eigenvalue do not move; on samples also those
            whose force is lost in its noise: 1/λ is divided by 1 + (½/SNR)⁶ (Schmitt & Heyl 2020, DOI
            10.1103/PhysRevLett.125.100503).
        on_step: called after each step with the time and the wave.

    Raises:
        ValueError: the operator is not Hermitian or leads out of its space, the wave is real in real time, or the
            tolerance would need steps shorter than 10⁻⁶ of the time.

    >>> from ketwork.waves import RBM, Wave, chain, ising
    >>> H = ising(chain(4), field=0.5)
    >>> wave = Wave(RBM(2, std=0.1, dtype=torch.complex128), H.space)
    >>> went = evolve(H, wave, 0.1, tolerance=1e-4)
    >>> round(went.times[-1], 12), max(went.errors) <= 1e-4
    (0.1, True)
    """
    check_same_space(operator, wave)
    if not operator.is_hermitian():
        raise ValueError("Argument `operator` must be Hermitian, but is not: its evolution is not unitary.")
    check_closed(operator)
    if (steps is None) == (tolerance is None):
        raise ValueError("Give either `steps`, a number of steps of one length, or `tolerance`.")
    if steps is not None and steps < 1:
        raise ValueError(f"Argument `steps` must be at least 1, but is {steps}.")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"Argument `tolerance` must be positive, but is {tolerance}.")
    if n_samples is not None and n_samples < 2:
        raise ValueError(
            f"Argument `n_samples` must be at least 2, or None for the full sum, but is {n_samples}."
        )
    if not imaginary and not wave.complex:
        raise ValueError(
            "Evolution in real time needs complex amplitudes, but this wave is real. Use a complex `dtype`."
        )
    sampler = FullSum() if n_samples is None else sampler or default_sampler(wave, operator)
    sampler.check(wave)
    motion = _Motion(operator, wave, sampler, n_samples or 1, imaginary, cutoff, generator_from(seed))
    record = _Record(on_step)
    if steps is not None:
        _of_one_length(motion, time, steps, record)
    elif tolerance is not None:
        _of_one_error(motion, time, tolerance, record)
    return Evolution(
        tuple(record.times),
        tuple(record.energies),
        tuple(record.errors),
        tuple(record.residuals),
        record.rejected,
    )


@dataclass(frozen=True, eq=False)
class _Velocity:
    """θ̇, the rows O that it came from, the energy, and what no direction follows."""

    value: Tensor
    o: Tensor
    energy: Expectation
    residual: float

    def angle(self, change: Tensor) -> float:
        """√(δ†Sδ): by how much a change of the parameters turns the state."""
        return float(torch.linalg.vector_norm(self.o @ change))


class _Record:
    """What is kept of each step."""

    def __init__(self, on_step: Callable[[float, Wave], None] | None) -> None:
        self.on_step, self.rejected = on_step, 0
        self.times: list[float] = []
        self.energies: list[Expectation] = []
        self.errors: list[float] = []
        self.residuals: list[float] = []

    def add(self, time: float, begun: _Velocity, error: float, wave: Wave) -> None:
        """A step that is done."""
        self.times.append(time)
        self.energies.append(begun.energy)
        self.errors.append(error)
        self.residuals.append(begun.residual)
        if self.on_step is not None:
            self.on_step(time, wave)


class _Motion:
    """The velocity of a wave's parameters, on samples of chains that go on."""

    def __init__(
        self,
        operator: Operator,
        wave: Wave,
        sampler: Sampler,
        n_samples: int,
        imaginary: bool,
        cutoff: float,
        generator: torch.Generator,
    ) -> None:
        self.operator, self.wave, self.sampler, self.n_samples = operator, wave, sampler, n_samples
        self.imaginary, self.cutoff, self.generator = imaginary, cutoff, generator
        self.chains = sampler.start(wave, n_samples, generator=generator)

    def velocity(self, vector: Tensor) -> _Velocity:
        """θ̇ at these parameters, which the wave is left with."""
        wave = self.wave
        wave.set_vector(vector)
        drawn, self.chains = self.sampler.draw(wave, self.n_samples, self.chains, generator=self.generator)
        local = local_of(self.operator, wave, drawn)
        o, energies = wave.jacobian(drawn.flat), local.values
        weights = torch.ones(len(o), dtype=torch.float64) if local.weights is None else local.weights
        o, energies, weights = without_nodes(o, energies, weights)
        weights = (weights / weights.sum()).to(o.real.dtype)
        o = centered(o, weights)
        driven = centered(energies, weights).to(o.dtype) * (-1 if self.imaginary else -1j)
        size = float(torch.linalg.vector_norm(driven))
        if o.is_complex() and not wave.holomorphic:
            o, driven = torch.cat([o.real, o.imag]), torch.cat([driven.real, driven.imag])
        value = _solved(o, driven, self.cutoff, None if drawn.complete else weights)
        residual = float(torch.linalg.vector_norm(driven - o @ value)) / size if size else 0.0
        return _Velocity(value, o, local.mean, residual)


def _solved(o: Tensor, driven: Tensor, cutoff: float, weights: Tensor | None) -> Tensor:
    """S⁺ O†driven, by the eigenvectors of S = O†O or of OO†, whichever is smaller, less what is noise on samples."""
    rows, count = o.shape
    values, vectors = torch.linalg.eigh(o.mH @ o if rows >= count else o @ o.mH)
    kept = values > cutoff * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    along = (
        o @ vectors if rows >= count else vectors * values.sqrt()
    )  # each sample's part of a direction (rows, kept)
    terms = along.conj() * driven[:, None]
    force = terms.sum(0)
    scaled = force / values
    if weights is not None:
        terms = terms.unflatten(0, (-1, len(weights))).sum(0)  # real and imaginary rows of a sample are one
        noise = torch.linalg.vector_norm(terms - weights.to(terms.dtype)[:, None] * force, dim=0)
        scaled = scaled / (1 + (NOISE * noise / force.abs().clamp(min=1e-300)) ** 6)
    return vectors @ scaled if rows >= count else o.mH @ (vectors @ (scaled / values.sqrt()))


def _of_one_length(motion: _Motion, time: float, steps: int, record: _Record) -> None:
    """Classical Runge–Kutta steps of fourth order."""
    step = time / steps
    for number in range(steps):
        start = motion.wave.vector()
        a = motion.velocity(start)
        b = motion.velocity(start + step / 2 * a.value)
        c = motion.velocity(start + step / 2 * b.value)
        d = motion.velocity(start + step * c.value)
        motion.wave.set_vector(start + step / 6 * (a.value + 2 * b.value + 2 * c.value + d.value))
        record.add((number + 1) * step, a, math.nan, motion.wave)


def _of_one_error(motion: _Motion, time: float, tolerance: float, record: _Record) -> None:
    """Steps of third order with the second embedded, as long as their error allows; the last velocity is the next's
    first."""
    start, now = motion.wave.vector(), 0.0
    a = motion.velocity(start)
    step = time * min(1.0, tolerance ** (1 / 3) / max(a.angle(a.value) * abs(time), 1e-300))
    while abs(now) < abs(time):
        if abs(step) < SHORTEST * abs(time):
            raise ValueError(
                f"Argument `tolerance` must be larger than {tolerance:g} here: at time {now:.6g} it needs steps "
                f"shorter than {SHORTEST:g} of the time. Where samples are noisy, use more of them."
            )
        last = abs(step) >= abs(time - now)
        step = time - now if last else step
        b = motion.velocity(start + step / 2 * a.value)
        c = motion.velocity(start + 3 / 4 * step * b.value)
        end = start + step * (2 / 9 * a.value + 1 / 3 * b.value + 4 / 9 * c.value)
        d = motion.velocity(end)
        error = a.angle(step * (-5 / 72 * a.value + b.value / 12 + c.value / 9 - d.value / 8))
        if error <= tolerance:
            now = time if last else now + step
            record.add(now, a, error, motion.wave)
            start, a = end, d
        else:
            record.rejected += 1
        grow = 0.9 * (tolerance / max(error, 1e-300)) ** (1 / 3) if math.isfinite(error) else 0.2
        step *= min(5.0, max(0.2, grow))
    motion.wave.set_vector(start)
