"""The loop of variational Monte Carlo: draw, measure, update, until the steps are done or the run says why not."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ketwork.records import Checkpoint
from ketwork.waves import checkpoints
from ketwork.waves.completion import completed
from ketwork.waves.deflation import Penalty
from ketwork.waves.estimates import Expectation
from ketwork.waves.guards import OVERFLOW, Guard, Trouble, Watch
from ketwork.waves.objectives import Local, local_of, resolution, summary
from ketwork.waves.operators import Operator
from ketwork.waves.optimizers import Optimizer, State
from ketwork.waves.processes import ALONE, Processes
from ketwork.waves.reconfiguration import factored_rows, rows
from ketwork.waves.results import Run, RunInterrupted, Step, Stopped, unfinished
from ketwork.waves.samplers.sampler import Sampler, Samples
from ketwork.waves.turns import bounded_step
from ketwork.waves.verdicts import ground_energy, most_overlap, verdict
from ketwork.waves.wave import Wave

BOUNDED = 2**12
"""Spaces up to this size have their ground energy computed before the first step, as the bound of all energies."""

OnStep = Callable[[Step], None]


@dataclass
class Training:
    """One run: what it was given, and its state between steps."""

    operator: Operator
    wave: Wave
    n_samples: int
    final: int
    steps: int
    sampler: Sampler
    optimizer: Optimizer
    guard: Guard
    generator: torch.Generator
    on_step: tuple[OnStep, ...] = ()
    checkpoint: Checkpoint | None = None
    penalties: tuple[Penalty, ...] = ()
    excited: bool = False
    processes: Processes = ALONE
    chains: Tensor = field(default_factory=lambda: torch.empty(0))
    state: State = field(default_factory=dict)
    history: list[Step] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    saved: checkpoints.Saved | None = None

    def __post_init__(self) -> None:
        known = ground_energy(self.operator, BOUNDED)
        bound = self.operator.lower_bound() if known is None else known
        self.watch = Watch(self.guard, bound, self.operator.scale)
        self.drawing = self.processes if self.sampler.splits else ALONE
        self.generator = self.drawing.draws(self.generator)
        self._agree()
        self.before = self.wave.vector()

    def start(self) -> None:
        """New chains."""
        self.chains = self._begun()

    def restore(self, saved: checkpoints.Saved) -> None:
        """The state of a checkpoint."""
        self.wave.set_vector(saved.vector)
        size, count, rank = len(self.generator.get_state()), self.drawing.count, self.drawing.rank
        if len(saved.generator) != size * count:
            raise ValueError(
                f"The checkpoint is of {len(saved.generator) // size} processes, but {count} resume it. Start as many."
            )
        self.generator.set_state(saved.generator[rank * size : (rank + 1) * size].clone())
        kept = self.sampler.kept(self.wave, self.drawing.share(self.n_samples))
        if len(saved.chains) != kept * count:
            raise ValueError(
                f"The checkpoint has {len(saved.chains)} chains, but this run keeps {kept * count}. Resume with the "
                "sampler and `n_samples` that it was made by."
            )
        self.chains = saved.chains[rank * kept : (rank + 1) * kept].to(self.wave.device)
        self.state = saved.optimizer
        self.history = saved.steps()
        self.saved = saved

    def run(self) -> Run:
        """All steps, and the energy at the end.

        Raises:
            Stopped: the run cannot be trusted any more.
            RunInterrupted: Ctrl-C.
        """
        try:
            ended = self._train()
            self._save()
            return self._finish(ended)
        except Stopped:
            self._save()
            raise
        except KeyboardInterrupt as error:
            self._save()
            raise RunInterrupted(self._partial("interrupted")) from error
        except SystemError as error:  # Ctrl-C inside compiled code comes out as this
            if not isinstance(error.__cause__, KeyboardInterrupt):
                raise
            self._save()
            raise RunInterrupted(self._partial("interrupted")) from error

    def _train(self) -> str:
        for index in range(len(self.history), self.steps):
            began = time.perf_counter()
            drawn, chains = self._draw(self.n_samples)
            local = self._penalised(local_of(self.operator, self.wave, drawn, self.processes), drawn)
            trouble = self._watched(local, drawn)
            if trouble is not None and trouble.reason == "nan":
                self.wave.set_vector(self.before)
            self._check(trouble)
            turn, state = self._update(index, drawn, local)
            self.chains, self.state = chains, state
            self.history.append(Step(index, local.mean, drawn.acceptance, time.perf_counter() - began, turn))
            self._remember()
            for listener in self.on_step if self.processes.first else ():
                listener(self.history[-1])
            if self.checkpoint is not None and len(self.history) % self.checkpoint.every == 0:
                self._save()
            if self.watch.settled:
                return "converged"
            if self.watch.still:
                return "still"
        return "steps"

    def _draw(self, n_samples: int) -> tuple[Samples, Tensor]:
        drawn, chains = self._drawn(n_samples, self.chains)
        full = completed(self.operator, self.wave, drawn)
        if full is not drawn:
            self.notes[
                "The samples had few distinct configurations; those joined to them were added, by weight."
            ] = None
        return full, chains

    def _begun(self) -> Tensor:
        return self.sampler.start(self.wave, self.drawing.share(self.n_samples), generator=self.generator)

    def _drawn(self, n_samples: int, chains: Tensor) -> tuple[Samples, Tensor]:
        """The samples of all processes, and this one's chains."""
        together = self.drawing
        drawn, chains = self.sampler.draw(
            self.wave, together.share(n_samples), chains, generator=self.generator
        )
        if together.count > 1:
            acceptance = together.total(torch.tensor(drawn.acceptance, dtype=torch.float64)) / together.count
            drawn = Samples(together.joined(drawn.configurations), float(acceptance))
        return drawn, chains

    def _penalised(self, local: Local, drawn: Samples) -> Local:
        """With the energy of overlaps with lower states."""
        if not self.penalties:
            return local
        values = local.values.to(torch.complex128)
        for penalty in self.penalties:
            values = values + penalty.values(self.wave, drawn.flat).to(values.device)
        mean = summary(self.operator, self.wave, values, local.weights, drawn)
        return Local(values if self.wave.complex else values.real, local.weights, mean)

    def _update(self, index: int, drawn: Samples, local: Local) -> tuple[float, State]:
        self.before = self.wave.vector()
        made = (
            factored_rows(self.wave, drawn.flat, local.values, local.weights)
            if self.optimizer.takes_factors
            else None
        )
        o, epsilon = made or rows(self.wave, drawn.flat, local.values, local.weights, self.processes)
        update, state = self.optimizer.update(
            o, epsilon, self.state, scale=self.operator.scale, progress=index / max(1, self.steps - 1)
        )
        self._check(self.watch.of_parameters(self.before + update))
        update, turn = bounded_step(self.wave, drawn, update, self.optimizer.angle)
        self._agree()
        self.watch.of_turn(turn)
        return turn, state

    def _agree(self) -> None:
        """All processes have the parameters of the first one."""
        if self.processes.count > 1:
            self.wave.set_vector(self.processes.agreed(self.wave.vector()))

    def _finish(self, ended: str) -> Run:
        """The energy on fresh samples, half of them from new chains, and the verdict on it."""
        drawn = self._fresh()
        local = local_of(self.operator, self.wave, drawn, self.processes)
        ground = None if self.excited else ground_energy(self.operator)
        run = Run(local.mean, self.wave, tuple(self.history), ended, ground, tuple(self.notes))
        size = self._resolution(local.mean)
        if ground is not None and (overlap := most_overlap(local.mean, ground, size)) < 0.5:
            note = f"Its energy and variance leave at most {overlap:.2g} of the state to the ground state."
            run = replace(run, notes=(*run.notes, note))
        if note := unfinished(local.mean, ground):
            run = replace(run, notes=(*run.notes, note))
        trouble = self._watched(local, drawn) or verdict(
            self.operator, self.wave, local.mean, drawn, self.guard, ground, size, ended == "still"
        )
        if trouble is not None:
            raise Stopped(trouble, replace(run, ended="stopped"))
        return run

    def _fresh(self) -> Samples:
        count = self.n_samples * self.final
        if not len(self.chains):
            return self._drawn(count, self.chains)[0]
        half = -(-count // 2)
        old, _ = self._drawn(half, self.chains)
        new, _ = self._drawn(half, self._begun())
        both = torch.cat([old.configurations, new.configurations])
        drawn = Samples(both, (old.acceptance + new.acceptance) / 2)
        return completed(self.operator, self.wave, drawn)

    def _watched(self, local: Local, drawn: Samples) -> Trouble | None:
        length = drawn.configurations.shape[1]
        # Those of a full sum may be any number at nodes.
        if local.weights is None and not bool(torch.isfinite(local.values.abs().to(self.wave.dtype)).all()):
            return OVERFLOW
        return self.watch.of_energy(local.mean, drawn.acceptance, self._resolution(local.mean), length)

    def _resolution(self, energy: Expectation) -> float:
        return resolution(self.operator, self.wave, float(energy))

    def _check(self, trouble: Trouble | None) -> None:
        if trouble is not None:
            raise Stopped(trouble, self._partial("stopped") or self._empty())

    def _partial(self, ended: str) -> Run | None:
        if not self.history:
            return None
        energy = self.history[-1].energy
        return Run(
            energy,
            self.wave,
            tuple(self.history),
            ended,
            None if self.excited else ground_energy(self.operator, BOUNDED),
            tuple(self.notes),
        )

    def _empty(self) -> Run:
        return Run(Expectation(), self.wave, (), "stopped")

    def _remember(self) -> None:
        if self.checkpoint is not None:
            chains, generator = map(self.drawing.joined, (self.chains, self.generator.get_state()))
            self.saved = checkpoints.Saved.from_steps(
                self.history, self.wave.vector(), chains, self.state, generator
            )

    def _save(self) -> None:
        """Writes the state after the last step; where that fails the run goes on, and says so once."""
        if self.checkpoint is None or self.saved is None or not self.processes.first:
            return
        try:
            checkpoints.save(self.checkpoint.path, self.saved, self.wave, self.operator)
        except OSError as error:
            note = f"A checkpoint could not be written, and the run went on: {error.strerror or error}"
            if note not in self.notes:
                self.notes[note] = None
                warnings.warn(note, RuntimeWarning, stacklevel=2)
