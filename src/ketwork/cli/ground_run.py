"""What `ketwork ground` does: a run with a live line of its energy, the exact value beside it, a plot at the end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console
from rich.live import Live
from rich.text import Text

from ketwork.records import Checkpoint
from ketwork.report import blank, write
from ketwork.waves import (
    Network,
    Operator,
    Run,
    Step,
    Wave,
    beside,
    ground_state,
    problems,
    sign_rule,
    unfinished,
)


def problem_of(made: object) -> tuple[problems.Problem, torch.nn.Module | None]:
    """What a user's factory returned: an operator, or a pair of an operator and a module."""
    operator, module = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(operator, Operator) or not (module is None or isinstance(module, torch.nn.Module)):
        raise ValueError(
            "A factory for `ketwork ground` must return a `waves.Operator`, or a pair of it and an `nn.Module`, "
            f"but returned {type(made).__name__}."
        )
    return problems.Problem(repr(operator), operator), module


def ground(
    problem: problems.Problem,
    module: torch.nn.Module,
    *,
    steps: int = 300,
    n_samples: int | None = 1008,
    seed: int = 0,
    save: str | Path | None = None,
    resume: str | Path | None = None,
    plot: str | Path | None = None,
    console: Console | None = None,
    status: Console | None = None,
    distributed: str | None = None,
) -> Run:
    """Trains and prints: a live line on a terminal, nothing on the way in a pipe; at the end the energy.

    What is done goes to `status`, what came of it to `console` (also both by default). `save` is the checkpoint's
    file, `plot` that of a picture. Raises `Stopped` and `ValueError` as `ground_state` does.
    """
    console = console or Console(stderr=True)
    status = status or console
    if plot is not None:
        blank(plot)
    wave = _wave(problem, module, seed)
    exact = problem.exact()
    name = type(module).__name__ if isinstance(module, Network) else f"{type(module).__name__} (your module)"
    size = f"{wave.space.size:,}" if wave.space.size < 1e12 else f"{wave.space.size:.2g}"
    status.print(Text(f"{problem.title}: {size} configurations; {name}, {wave.count:,} parameters"))
    with _live(status, steps, exact) as show:
        run = ground_state(
            problem.operator,
            wave,
            steps=steps,
            n_samples=n_samples,
            seed=seed,
            checkpoint=_checkpoint(save, resume, distributed is not None),
            distributed=distributed,
            on_step=show,
        )
    if plot is not None:
        figure = blank(plot)
        run.plot(figure.subplots(), title=problem.title, exact=exact)
        write(figure, plot)
    console.print(Text(f"E = {run.energy}{beside(run.energy, exact)}", style="bold"))
    for note in filter(None, dict.fromkeys((*run.notes, unfinished(run.energy, exact)))):
        console.print(Text(note, style="dim"))
    for what, path in (("run", save), ("plot", plot)):
        if path is not None:
            status.print(Text(f"Saved the {what} to {path}", style="dim"))
    return run


def line(step: Step, steps: int, exact: float | None, rate: float) -> str:
    """The live line: step, energy with its error and V-score, distance from the exact value, time left."""
    left = int((steps - 1 - step.index) / rate) if rate > 0 else 0
    return (
        f"step {step.index + 1}/{steps}  E = {step.energy}{beside(step.energy, exact)}  "
        f"{left // 60}:{left % 60:02d} left"
    )


def _wave(problem: problems.Problem, module: torch.nn.Module, seed: int) -> Wave:
    """The wave, with the operator's sign rule where the network is real and needs one."""
    space = problem.operator.space
    wave = Wave(module, space, seed=seed)
    rule = None if wave.complex else sign_rule(problem.operator)
    return Wave(module, space, signs=rule) if rule else wave


def _checkpoint(
    save: str | Path | None, resume: str | Path | None, together: bool = False
) -> Checkpoint | None:
    """Writes to one file, and continues with what it or another one holds; the first process of a job copies that."""
    if resume is None:
        return None if save is None else Checkpoint(save, every=50)
    if not Path(resume).is_file():
        raise FileNotFoundError(f"--resume must name a saved run, but there is no file {str(resume)!r}.")
    if save is not None and Path(save).resolve() != Path(resume).resolve():
        if not together or dist.get_rank() == 0:
            shutil.copyfile(resume, save)
        if together:
            dist.barrier()
    return Checkpoint(save or resume, every=50, resume=True)


@contextmanager
def _live(console: Console, steps: int, exact: float | None) -> Iterator[_Show | None]:
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield _Show(live, steps, exact)


class _Show:
    """Called after each step: rewrites the live line."""

    def __init__(self, live: Live, steps: int, exact: float | None) -> None:
        self.live, self.steps, self.exact = live, steps, exact
        self.began, self.count = time.perf_counter(), 0

    def __call__(self, step: Step) -> None:
        """One step further."""
        self.count += 1
        rate = self.count / max(time.perf_counter() - self.began, 1e-9)
        self.live.update(Text(line(step, self.steps, self.exact, rate), no_wrap=True, overflow="ellipsis"))
