"""What a run gives: its energy and every step on the way; or why it stopped, or was stopped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.records import Presented
from ketwork.waves import wave_files
from ketwork.waves.estimates import Expectation
from ketwork.waves.guards import Trouble
from ketwork.waves.wave import Wave

COLUMNS = 10
_CERTAIN, _NEAR = 5.0, 1e-3  # standard errors, and a part of the energy
RUN_KEY = "ketwork.run"
_PRESENTER = (
    "ketwork.report.waves"  # fills the slots of `Presented`; by name, since it stands above this package
)


@dataclass(frozen=True)
class Step:
    """One step of a run: the energy before its update, the share of proposals accepted, seconds.

    `turn` is the angle between the states before and after, in radians, as measured.
    """

    index: int
    energy: Expectation
    acceptance: float
    seconds: float
    turn: float = 0.0

    def numbers(self) -> tuple[float, ...]:
        """All but the index as plain numbers (10): the expectation value's seven, then the others."""
        return (*self.energy.numbers(), self.acceptance, self.seconds, self.turn)

    @classmethod
    def from_numbers(cls, index: int, numbers: Sequence[float]) -> Step:
        """The step of what `numbers` gave; the last one may be missing."""
        return cls(index, Expectation(*numbers[:7]), *numbers[7:])


def table_of(history: Sequence[Step]) -> Tensor:
    """The numbers of all steps (steps, 10), in double precision."""
    rows = [step.numbers() for step in history]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), COLUMNS)


def steps_of(table: Tensor) -> list[Step]:
    """The steps of what `table_of` gave."""
    return [Step.from_numbers(index, row) for index, row in enumerate(table.double().tolist())]


@dataclass(frozen=True, repr=False)
class Run(Presented):
    """A run of variational Monte Carlo.

    Args:
        energy: of the trained wave, on fresh samples; of the last step where the run was interrupted.
        wave: the trained wave.
        history: every step.
        ended: `"steps"` (all were done), `"converged"` (the energy no longer varied), `"still"` (steps no longer
            turned the state), `"interrupted"` or `"stopped"`.
        exact: the exact ground energy, where the space is small enough to have it computed.
        notes: what a reader of the numbers should know.
    """

    energy: Expectation
    wave: Wave
    history: tuple[Step, ...]
    ended: str = "steps"
    exact: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The time of all steps."""
        return sum(step.seconds for step in self.history)

    def save(self, path: str | Path) -> Path:
        """Writes the run with its wave and every step to a file (safetensors), in one step; returns the path."""
        tensors, about = wave_files.pack_wave(self.wave)
        tensors["run.history"] = table_of(self.history)
        tensors["run.energy"] = torch.tensor(self.energy.numbers(), dtype=torch.float64)
        about_run = {"ended": self.ended, "exact": self.exact, "notes": list(self.notes)}
        return wave_files.write(path, RUN_KEY, tensors, {"wave": about, "run": about_run})

    @classmethod
    def load(cls, path: str | Path, module: nn.Module | None = None) -> Run:
        """The run that `save` wrote; a module of the user's own is given anew. Raises as `Wave.load` does."""
        tensors, about = wave_files.read(path, RUN_KEY, "run")
        empty = torch.empty(0)
        history, energy = tensors.get("run.history", empty), tensors.get("run.energy", empty)
        about_run = about.get("run")
        if history.shape[1:] != (COLUMNS,) or energy.shape != (7,) or not isinstance(about_run, dict):
            raise wave_files.broken(path, "run", "its steps are missing")
        exact, notes = about_run.get("exact"), about_run.get("notes")
        return cls(
            Expectation(*energy.double().tolist()),
            wave_files.unpack_wave(Wave, path, tensors, about.get("wave"), module),
            tuple(steps_of(history)),
            str(about_run.get("ended", "steps")),
            float(exact) if isinstance(exact, int | float) else None,
            tuple(map(str, notes)) if isinstance(notes, list) else (),
        )

    def __repr__(self) -> str:
        return f"<Run {self}>"

    def __str__(self) -> str:
        ended = {"steps": "", "converged": ", converged", "still": ", no step moved it any more"}
        return (
            f"E = {self.energy}{beside(self.energy, self.exact)} after {len(self.history)} steps in "
            f"{self.seconds:.1f} s{ended.get(self.ended, f', {self.ended}')}"
        )

    def summary(self) -> dict[str, str]:
        """What to read of a run, by name; empty where there is nothing to say."""
        return {
            "energy": str(self.energy),
            "exact ground energy": "" if self.exact is None else f"{self.exact:.10g}",
            "wave": repr(self.wave),
            "steps": f"{len(self.history)} in {self.seconds:.1f} s ({self.ended})",
            "notes": " ".join(self.notes),
        }

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self.summary().items()
            if value
        )
        return f"<table>{cells}</table>"

    def report(self, path: str | Path, **options: Any) -> Path:
        """Writes the run as one HTML page that needs no network, and returns its path (extra `plot`)."""
        import_module(_PRESENTER)
        return super().report(path, **options)

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draws the energies into matplotlib axes (new ones by default) and returns them (extra `plot`)."""
        import_module(_PRESENTER)
        return super().plot(ax, **options)


class Stopped(RuntimeError):
    """A run that could not be trusted any more: why (`reason`, see `Guard`), and the run so far as `partial`.

    The wave keeps the parameters it had before the update that failed.
    """

    def __init__(self, trouble: Trouble, partial: Run) -> None:
        super().__init__(f"Stopped at step {len(partial.history)}, {trouble.reason}: {trouble.explanation}")
        self.reason, self.partial = trouble.reason, partial

    @property
    def history(self) -> tuple[Step, ...]:
        """The steps so far."""
        return self.partial.history


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during a run; `partial` holds the run so far, or None if no step was finished."""

    def __init__(self, partial: Run | None) -> None:
        super().__init__("the run was interrupted")
        self.partial = partial


def beside(energy: float, exact: float | None) -> str:
    """The exact value, and how far the energy is from it, in its own unit and as a part of it, where there is one."""
    if exact is None:
        return ""
    gap = float(energy) - exact
    part = f", {abs(gap / exact):.1e} of it" if exact else ""
    return f"  exact {exact:.8g} ({abs(gap):.2g} {'above' if gap >= 0 else 'below'}{part})"


def unfinished(energy: Expectation, exact: float | None) -> str:
    """A sentence where the state is not the ground state for certain and by more than `_NEAR`; else ""."""
    gap = math.nan if exact is None else float(energy) - exact
    if exact is None or not gap > max(_CERTAIN * energy.stderr, _NEAR * abs(exact)):
        return ""
    errors = f"{gap / energy.stderr:.0f} standard errors" if energy.stderr > 0 else f"{gap:.2g}"
    return (
        f"The state is not the ground state yet: its energy is {errors} above the exact one (± is of sampling alone). "
        "Take more steps, more samples or a larger network."
    )
