"""State matching: trains a wave towards a ket or another wave, by the natural gradient of the infidelity.

The infidelity 1 − F is the energy of 1 − |φ⟩⟨φ|, whose local value at x is 1 − (φ(x)/ψ(x))·⟨ψ/φ⟩, the mean over |φ|².
The mean and the values come from samples of their own, so that the gradient is unbiased. A step of imaginary time 1/F
leads all the way to φ where the network can follow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ketwork.quantum import Ket, generator_from
from ketwork.waves.estimates import Expectation
from ketwork.waves.guards import Trouble
from ketwork.waves.observables import averaged
from ketwork.waves.optimizers import SR, Optimizer
from ketwork.waves.overlaps import HeldState, fidelity, ratios, state_on
from ketwork.waves.reconfiguration import rows
from ketwork.waves.results import Run, Step, Stopped
from ketwork.waves.run import default_sampler
from ketwork.waves.samplers.sampler import FullSum, Sampler, Samples
from ketwork.waves.turns import bounded_step
from ketwork.waves.wave import Wave

SUMMED = 2**12
"""Kets on spaces up to this size are summed over in every step."""

LEAST = 1e-3
"""The least fidelity that a step is divided by."""

PHASE = 1e-6
"""A wave of given signs must agree with its target in them up to this."""


def match(
    target: Wave | Ket,
    wave: Wave,
    *,
    steps: int = 200,
    n_samples: int | None = 1008,
    sampler: Sampler | None = None,
    optimizer: Optimizer | None = None,
    seed: int | torch.Generator = 0,
    final: int = 8,
    on_step: Callable[[Step], None] | None = None,
) -> Run:
    """The run that trained `wave` towards `target`; `run.energy` is the infidelity 1 − |⟨φ|ψ⟩|² on fresh samples.

    Infidelities are those of `fidelity`: unbiased, with a standard error; exact on full sums (`n_samples=None`).
    `variance` is F(1 − F), that of the operator 1 − |φ⟩⟨φ|.

    Args:
        target: a wave on the same space, or a ket on its full tensor product whose weight lies in the space.
        wave: the wave, which is trained in place.
        steps: the updates.
        n_samples: configurations drawn from each of the two in a step; None sums over all of them. A ket on at most 2¹²
            configurations is summed over, and its infidelity exact.
        sampler: another way to draw from the wave.
        optimizer: another way to update; stochastic reconfiguration unless given. Its scale is the fidelity.
        seed: what both are drawn by.
        final: how many times `n_samples` the infidelity at the end is measured on.
        on_step: called after each step with its `Step`.

    Raises:
        ValueError: the spaces differ, the ket leaves the space, or the wave's amplitudes have fixed signs (a real
            network) that are not the target's.
        Stopped: an amplitude or a step is NaN or infinite.

    >>> from ketwork.waves import RBM, chain, exact, ising
    >>> H = ising(chain(6), field=1.0)
    >>> ground = Ket(exact.ground_state_vector(H), H.space.shape)
    >>> run = match(ground, Wave(RBM(alpha=2), H.space), steps=60, n_samples=None)
    >>> run.energy < 1e-3
    True
    """
    if steps < 1:
        raise ValueError(f"Argument `steps` must be at least 1, but is {steps}.")
    if n_samples is not None and n_samples < 1:
        raise ValueError(
            f"Argument `n_samples` must be at least 1, or None for the full sum, but is {n_samples}."
        )
    held = state_on(wave.space, target)
    generator = generator_from(seed)
    mine = _Draws(wave, FullSum() if n_samples is None else sampler or default_sampler(wave), generator)
    theirs = _Draws(held, _sampler(held, n_samples), generator)
    optimizer = optimizer or SR()
    optimizer_state: dict[str, Tensor] = {}
    history: list[Step] = []
    for index in range(steps):
        began = time.perf_counter()
        drawn, other = mine(n_samples), theirs(n_samples)
        if not index:
            _check_signs(wave, held, other)
        reached = _infidelity(wave, held, drawn, other)
        values = _local_values(wave, held, drawn, other)
        before = wave.vector()
        weights = None if drawn.weights is None else drawn.weights.flatten()
        o, epsilon = rows(wave, drawn.flat, values, weights)
        update, optimizer_state = optimizer.update(
            o,
            epsilon,
            optimizer_state,
            scale=min(1.0, max(LEAST, 1 - float(reached))),
            progress=index / max(1, steps - 1),
        )
        if not bool(torch.isfinite(torch.view_as_real(update) if update.is_complex() else update).all()):
            wave.set_vector(before)
            trouble = Trouble("nan", "A step is NaN or infinite. Lower the rate, or use float64.")
            raise Stopped(trouble, Run(reached, wave, tuple(history), "stopped", 0.0))
        _, turn = bounded_step(wave, drawn, update, optimizer.angle)
        history.append(Step(index, reached, drawn.acceptance, time.perf_counter() - began, turn))
        if on_step is not None:
            on_step(history[-1])
    count = None if n_samples is None else n_samples * final
    reached = _infidelity(wave, held, mine(count), theirs(count))
    return Run(reached, wave, tuple(history), "steps", 0.0)


class _Draws:
    """Samples of a state, from chains that go on where it has them."""

    def __init__(self, state: Wave | HeldState, sampler: Sampler | None, generator: torch.Generator) -> None:
        self.state, self.sampler, self.generator = state, sampler, generator
        self.chains: Tensor | None = None

    def __call__(self, n_samples: int | None) -> Samples:
        """That many, or all."""
        if isinstance(self.state, HeldState):
            if n_samples is None or self.sampler is not None:
                return self.state.all()
            return self.state.sample(n_samples, self.generator)
        assert self.sampler is not None
        count = n_samples or 1
        if self.chains is None:
            self.sampler.check(self.state)
            self.chains = self.sampler.start(self.state, count, generator=self.generator)
        drawn, self.chains = self.sampler.draw(self.state, count, self.chains, generator=self.generator)
        return drawn


def _sampler(state: Wave | HeldState, n_samples: int | None) -> Sampler | None:
    """How the target is drawn from; None for a ket too large to be summed over."""
    if isinstance(state, HeldState):
        return FullSum() if n_samples is None or state.space.size <= SUMMED else None
    return FullSum() if n_samples is None else default_sampler(state)


def _infidelity(wave: Wave, target: Wave | HeldState, drawn: Samples, other: Samples) -> Expectation:
    if isinstance(target, HeldState):
        shared = fidelity(wave, target.ket, drawn, None if other.complete else other)
    else:
        shared = fidelity(wave, target, drawn, other)
    value = float(shared.value)
    return Expectation(1 - value, float(shared.stderr), variance=max(0.0, value * (1 - value)))


def _local_values(wave: Wave, target: Wave | HeldState, drawn: Samples, other: Samples) -> Tensor:
    """−(φ(x)/ψ(x))·⟨ψ/φ⟩ of drawn configurations (n,): the local values of −|φ⟩⟨φ|."""
    log = ratios(wave, target, drawn.configurations)
    seen = log.real[torch.isfinite(log.real)]
    level = float(seen.max()) if len(seen) else 0.0
    back = averaged(torch.exp(ratios(target, wave, other.configurations) + level), other).value
    values = -(torch.exp(log - level) * back).flatten()
    values = torch.where(torch.isfinite(values.abs()), values, 0.0)  # at a node of ψ, which has no weight
    return values if wave.complex else values.real


def _check_signs(wave: Wave, target: Wave | HeldState, other: Samples) -> None:
    """Refuses a wave of given signs where its target has others: no training changes them."""
    if wave.complex or wave.signed:
        return
    log = ratios(wave, target, other.configurations).flatten()
    phase = torch.exp(1j * log.imag[torch.isfinite(log.real)])
    if len(phase) and float((phase - phase[0]).abs().max()) > PHASE and math.isfinite(float(phase[0].real)):
        raise ValueError(
            "Argument `wave` must be able to have the target's signs, but its network is real. Use a complex network "
            "(`dtype=torch.complex64`, `phase=True`), or `Wave(…, signs=…)` where a rule gives the signs."
        )
