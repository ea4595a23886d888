"""Variational Monte Carlo: trains a wave towards the ground state of an operator, or says why it stopped."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ketwork.waves import checkpoints, exact
from ketwork.waves.estimates import Estimate, estimate
from ketwork.waves.guards import Guard, Trouble
from ketwork.waves.local_energy import check_same_space, full_local_energies, local_energies
from ketwork.waves.operators import Operator
from ketwork.waves.optimisers import SR, Optimiser, State
from ketwork.waves.reconfiguration import rows
from ketwork.waves.samplers.metropolis import Metropolis
from ketwork.waves.samplers.sampler import Direct, FullSum, Sampler, Samples
from ketwork.waves.wave import Wave

SMALL = 4096
"""Spaces up to this size have their ground energy computed, as the bound that no energy may lie below."""


@dataclass(frozen=True)
class Step:
    """One step of a run: the energy before its update, the share of proposals accepted, seconds."""

    index: int
    energy: Estimate
    acceptance: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A finished run: the energy of the trained wave, and every step on the way."""

    energy: Estimate
    wave: Wave
    history: tuple[Step, ...]

    def __str__(self) -> str:
        seconds = sum(step.seconds for step in self.history)
        return f"E = {self.energy} after {len(self.history)} steps in {seconds:.1f} s"


class Stopped(RuntimeError):
    """A run that could not be trusted any more: why (`reason`, see `Guard`), and its `history` so far.

    The wave keeps the parameters it had before the update that failed.
    """

    def __init__(self, trouble: Trouble, history: tuple[Step, ...]) -> None:
        super().__init__(f"Stopped at step {len(history)}, {trouble.reason}: {trouble.explanation}")
        self.reason, self.history = trouble.reason, history


def ground_state(
    operator: Operator,
    wave: Wave,
    *,
    steps: int = 300,
    samples: int | None = 1008,
    sampler: Sampler | None = None,
    optimiser: Optimiser | None = None,
    seed: int = 0,
    final: int = 8,
    guard: Guard | None = None,
    checkpoint: str | Path | None = None,
    every: int = 50,
    resume: str | Path | None = None,
    callback: Callable[[Step], None] | None = None,
) -> Run:
    """The run that trained `wave` towards the ground state of `operator`; `run.energy` is what it reached.

    Each step draws `samples` configurations from |ψ|² (None: the full sum), takes their local energies and
    log-derivatives, and lets the optimiser (stochastic reconfiguration by default) update the parameters.
    The energy at the end is measured on `final`·`samples` fresh configurations with the parameters held. The
    sampler is chosen by the wave: direct where the network can draw, else Metropolis with the rule that
    keeps to the space.

    With `checkpoint`, the run is saved every `every` steps, at the end and when it is stopped; `resume` goes
    on from such a file, to the same numbers as a run that was never interrupted. Raises `Stopped` with a
    named reason when the run cannot be trusted.

    >>> from ketwork.waves import RBM, Wave, chain, ising
    >>> H = ising(chain(6), field=1.0)
    >>> run = ground_state(H, Wave(RBM(alpha=1), H.space), steps=60, samples=None)
    >>> abs(run.energy.mean - exact.ising_chain_energy(6)) < 1e-3
    True
    """
    check_same_space(operator, wave)
    if not operator.is_hermitian():
        raise ValueError("Argument `operator` must be Hermitian, but is not: its energies would be complex.")
    if samples is not None and samples < 1:
        raise ValueError(
            f"Argument `samples` must be at least 1, or None for the full sum, but is {samples}."
        )
    if steps < 1:
        raise ValueError(f"Argument `steps` must be at least 1, but is {steps}.")
    sampler = FullSum() if samples is None else sampler or default_sampler(wave)
    sampler.check(wave)
    optimiser = optimiser or SR()
    guard = guard or Guard(_bound(operator))
    count = samples or wave.space.size
    generator = torch.Generator().manual_seed(seed)
    history: list[Step] = []
    state: State = {}
    if resume is None:
        chains = sampler.start(wave, count, generator=generator)
    else:
        saved = checkpoints.load(resume, wave, operator)
        wave.set_vector(saved.vector)
        generator.set_state(saved.generator)
        chains, state, history = saved.chains, saved.optimiser, _steps(saved.history)

    last: checkpoints.Checkpoint | None = None

    def keep() -> None:
        if checkpoint is not None and last is not None:
            checkpoints.save(checkpoint, replace(last, history=_rows(history[: last.step])), wave, operator)

    try:
        for index in range(len(history), steps):
            began = time.perf_counter()
            drawn, chains = sampler.draw(wave, count, chains, generator=generator)
            energies, weights = energies_of(operator, wave, drawn)
            energy = summary(operator, energies, weights, drawn.chains)
            trouble = guard.of_energy(energy, drawn.acceptance)
            if trouble is None:
                o, epsilon = rows(wave, drawn.flat, energies, weights)
                progress = index / max(1, steps - 1)
                update, state = optimiser.update(o, epsilon, state, scale=operator.scale, progress=progress)
                vector = wave.vector() + update
                trouble = guard.of_parameters(vector)
            if trouble is not None:
                raise Stopped(trouble, tuple(history))
            wave.set_vector(vector)
            history.append(Step(index, energy, drawn.acceptance, time.perf_counter() - began))
            last = checkpoints.Checkpoint(len(history), vector, chains, state, generator.get_state())
            if callback is not None:
                callback(history[-1])
            if len(history) % every == 0 or len(history) == steps:
                keep()
    except (KeyboardInterrupt, Stopped):
        keep()
        raise
    except SystemError as error:  # Ctrl-C inside compiled code comes out as this
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        keep()
        raise KeyboardInterrupt from error

    drawn, _ = sampler.draw(wave, count * (final if samples else 1), chains, generator=generator)
    energy = summary(operator, *energies_of(operator, wave, drawn), drawn.chains)
    trouble = guard.of_energy(energy, drawn.acceptance)
    if trouble is not None:
        raise Stopped(trouble, tuple(history))
    return Run(energy, wave, tuple(history))


def default_sampler(wave: Wave) -> Sampler:
    """Direct where the network can draw configurations, Metropolis otherwise."""
    return Direct() if hasattr(wave.module, "draw") else Metropolis()


def energies_of(operator: Operator, wave: Wave, drawn: Samples) -> tuple[Tensor, Tensor | None]:
    """Local energies (n,) of drawn configurations, and their weights where they are a full sum."""
    if drawn.amplitudes is not None:
        return full_local_energies(operator, wave, drawn.amplitudes[0])
    return local_energies(operator, wave, drawn.flat), None


def summary(operator: Operator, energies: Tensor, weights: Tensor | None, chains: int) -> Estimate:
    """The estimate of local energies (n,) from that many chains."""
    return estimate(
        energies.reshape(chains, -1),
        None if weights is None else weights.reshape(chains, -1),
        sites=operator.space.sites,
        infinite=operator.mean,
    )


def _bound(operator: Operator) -> float:
    small = operator.space.size <= SMALL
    return exact.ground_energy(operator) if small else operator.lower_bound()


def _rows(history: list[Step]) -> Tensor:
    return torch.tensor([[*astuple(s.energy), s.acceptance, s.seconds] for s in history], dtype=torch.float64)


def _steps(rows: Tensor) -> list[Step]:
    return [Step(k, Estimate(*row[:-2]), row[-2], row[-1]) for k, row in enumerate(rows.tolist())]
