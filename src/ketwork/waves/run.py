"""Variational Monte Carlo: trains a wave towards the ground state of an operator, or says why it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ketwork._compat import moved, renamed
from ketwork.quantum import generator_from
from ketwork.records import Checkpoint, files
from ketwork.waves import checkpoints, progress_bar
from ketwork.waves.deflation import Penalty, drawn_once
from ketwork.waves.guards import Guard
from ketwork.waves.local_energy import check_same_space
from ketwork.waves.operators import Operator
from ketwork.waves.optimizers import SR, Optimizer
from ketwork.waves.processes import Processes
from ketwork.waves.results import Run, Step
from ketwork.waves.samplers.metropolis import Metropolis
from ketwork.waves.samplers.rules import default_rule
from ketwork.waves.samplers.sampler import Direct, FullSum, Sampler
from ketwork.waves.samplers.unique import WithoutReplacement
from ketwork.waves.structure import check_closed, excitation_energy, sign_rule
from ketwork.waves.training import Training
from ketwork.waves.wave import Wave

PEAKED = 2**16
"""Determinants on spaces up to this size are drawn without replacement."""


@renamed(samples="n_samples", optimiser="optimizer", callback="on_step")
def ground_state(
    operator: Operator,
    wave: Wave,
    *,
    steps: int = 300,
    n_samples: int | None = 1008,
    sampler: Sampler | None = None,
    optimizer: Optimizer | None = None,
    seed: int | torch.Generator = 0,
    final: int = 8,
    guard: Guard | None = None,
    excited: bool = False,
    orthogonal_to: Sequence[Wave] = (),
    penalty: float | None = None,
    checkpoint: Checkpoint | str | Path | None = None,
    on_step: Callable[[Step], None] | Sequence[Callable[[Step], None]] | None = None,
    progress: bool | Callable[[Step], None] = False,
    distributed: str | None = None,
    every: int | None = None,
    resume: str | Path | None = None,
) -> Run:
    """The run that trained `wave` towards the ground state of `operator`; `run.energy` is what it reached.

    Each step draws `n_samples` configurations from |ψ|² (None: the full sum), takes their local energies and
    log-derivatives, and lets the optimizer (stochastic reconfiguration by default) update the parameters.
    The energy at the end is measured on `final`·`n_samples` fresh configurations with the parameters held, half of them
    from new chains. The sampler is chosen by the wave: direct where the network can draw, else Metropolis with the rule
    that keeps to the space. A run whose energy no longer varies ends before its steps are done.

    Args:
        operator: a Hermitian operator that keeps to its space.
        wave: a wave on that space; it is trained in place.
        steps: the most updates.
        n_samples: configurations drawn in a step; None sums over all of them.
        sampler: another way to draw.
        optimizer: another way to update.
        seed: what chains are drawn by.
        final: how many times `n_samples` the last energy is measured on.
        guard: when to stop; see `Guard`.
        excited: whether the wave is kept from the ground state, by its symmetry, so that its energy is not held against
            the ground state's.
        orthogonal_to: waves of lower states: each overlap with one costs `penalty`, twice the operator's scale unless
            given, in the energies of the steps. `run.energy` is without. See `spectrum`.
        checkpoint: a file, or `Checkpoint(path, every, resume)`. A run that resumes gives the numbers of one that was
            never interrupted. Where a checkpoint cannot be written the run goes on, and warns.
        on_step: called after each step with its `Step`; `waves.JsonLines` and `waves.TensorBoard` are such.
        progress: True for a bar, or a function called after each step.
        distributed: None runs here, whatever job this process is in. "split" shares the run with the other processes of
            a `torch.distributed` job, all of which call this with the same arguments: each keeps chains of its own
            (those of a list of configurations, as a full sum, draw the same) and computes local energies and
            log-derivatives of its part of the samples; all return the same run. The first one writes checkpoints and
            calls `on_step`. Memory is that of one process, which has all log-derivatives for the solver.

    Raises:
        ValueError: the operator is not Hermitian or leads out of its space, or a positive wave cannot be its ground
            state.
        Stopped: the run cannot be trusted; `reason` says why.
        RunInterrupted: Ctrl-C; `partial` is the run so far.

    >>> from ketwork.waves import RBM, Wave, chain, exact, ising
    >>> H = ising(chain(6), field=1.0)
    >>> run = ground_state(H, Wave(RBM(alpha=1), H.space), steps=60, n_samples=None)
    >>> abs(run.energy - exact.ising_chain_energy(6)) < 1e-3
    True
    """
    _check(operator, wave, steps, n_samples)
    sampler = FullSum() if n_samples is None else sampler or default_sampler(wave, operator)
    sampler.check(wave)
    kept, resumed = _checkpoint(checkpoint, every, resume)
    processes = Processes.from_argument(distributed)
    strength = 2 * operator.scale if penalty is None else penalty
    listeners = [] if on_step is None else [on_step] if callable(on_step) else list(on_step)
    with ExitStack() as stack:
        if progress and processes.first:
            listeners.append(progress if callable(progress) else stack.enter_context(progress_bar.bar(steps)))
        training = Training(
            operator,
            wave,
            n_samples or wave.space.size,
            final if n_samples else 1,
            steps,
            sampler,
            optimizer or default_optimizer(wave, operator),
            guard or Guard(),
            generator_from(seed),
            tuple(listeners),
            kept,
            tuple(
                Penalty(lower, drawn_once(lower, sampler, n_samples, index), strength)
                for index, lower in enumerate(orthogonal_to)
            ),
            excited or bool(orthogonal_to),
            processes,
        )
        if resumed is None:
            training.start()
        else:
            training.restore(checkpoints.load(resumed, wave, operator))
        return training.run()


def default_sampler(wave: Wave, operator: Operator | None = None) -> Sampler:
    """Direct where the network can draw configurations, Metropolis with a rule for the operator otherwise.

    Determinants on spaces of at most 2¹⁶ configurations, and networks that draw electrons, are drawn without
    replacement: their states are peaked.
    """
    draws, peaked = hasattr(wave.module, "draw"), len(wave.space.conserved) > 1
    if (draws and peaked) or (wave.signed and wave.space.size <= PEAKED):
        return WithoutReplacement()
    return Direct() if draws else Metropolis(default_rule(wave.space, operator))


def default_optimizer(wave: Wave, operator: Operator) -> Optimizer:
    """Stochastic reconfiguration; at least four times as fast for determinants, which start near the ground state.

    The rate is divided by an operator's largest energy a site, which a molecule's core electrons decide and not what
    is left to correct. So determinants on spaces of at most 2¹⁶ configurations take steps of at least 0.6 of the one
    that lowers the energy most from the basis state of least energy: 1/`excitation_energy`. Their shift is 10⁻²
    throughout: they have no random start to leave, and more parameters than draws, whose noise a smaller one fits.
    """
    if not wave.signed:
        return SR()
    gap = excitation_energy(operator) if wave.space.size <= PEAKED else 0.0
    rate = max(2.0, 0.6 * operator.scale / gap) if gap > 0 else 2.0
    return SR(rate=rate, shift=(1e-2, 1e-2))


def _check(operator: Operator, wave: Wave, steps: int, n_samples: int | None) -> None:
    check_same_space(operator, wave)
    if not operator.is_hermitian():
        raise ValueError("Argument `operator` must be Hermitian, but is not: its energies would be complex.")
    if n_samples is not None and n_samples < 1:
        raise ValueError(
            f"Argument `n_samples` must be at least 1, or None for the full sum, but is {n_samples}."
        )
    if steps < 1:
        raise ValueError(f"Argument `steps` must be at least 1, but is {steps}.")
    check_closed(operator)
    if wave.complex or wave.signed or wave.signs is not None:
        return
    rule = sign_rule(operator)
    if rule is None:
        raise ValueError(
            "Argument `wave` must be able to have signs, but its network is real, so that all amplitudes are "
            "positive, and the operator is frustrated or complex: no sign rule makes its ground state positive. Use a "
            "complex network (`dtype=torch.complex64`, `phase=True`), or accept a bound with positive amplitudes: "
            "`Wave(…, signs=())`."
        )
    if rule:
        raise ValueError(
            "Argument `wave` must be able to have signs, but its network is real, so that all amplitudes are "
            "positive, and the operator's ground state has signs. Give the wave their rule, "
            "`Wave(…, signs=waves.sign_rule(operator))`, or use a complex network."
        )


def _checkpoint(
    checkpoint: Checkpoint | str | Path | None, every: int | None, resume: str | Path | None
) -> tuple[Checkpoint | None, str | Path | None]:
    """The checkpoints to write and the file to continue with, from the arguments of this version and the one before."""
    kept = Checkpoint.from_argument(checkpoint)
    if every is not None or resume is not None:
        moved(
            "Arguments `every` and `resume` are now in `checkpoint=Checkpoint(path, every, resume=True)`.", 3
        )
        if kept is not None and every is not None:
            kept = Checkpoint(kept.path, every, kept.resume)
    if kept is not None:
        if not Path(kept.path).parent.is_dir() or not files.writable(Path(kept.path)):
            raise ValueError(
                f"Argument `checkpoint` must name a file that can be written, but {str(kept.path)!r} cannot."
            )
        if kept.resume and resume is None and Path(kept.path).exists():
            resume = Path(kept.path)
    return kept, resume
