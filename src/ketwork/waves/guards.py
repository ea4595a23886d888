"""When a run can no longer be trusted: each reason has a name, and stopping beats a wrong number."""

import math
from dataclasses import dataclass

from torch import Tensor

from ketwork.waves.estimates import Expectation

SETTLED = 5
"""So many steps without variance end a run."""

STILL = 25
"""So many steps that do not turn the state end a run."""

TURN = 1e-7
"""A step that turns the state by fewer radians does not turn it."""


@dataclass(frozen=True)
class Trouble:
    """A reason by its name, and what it means and what to try."""

    reason: str
    explanation: str


OVERFLOW = Trouble("nan", "A local energy is NaN or infinite. Lower the rate, or use float64.")


@dataclass(frozen=True)
class Guard:
    """When to stop a run; the same guard serves any number of runs.

    The reasons: `"nan"`, `"frozen chains"` (no proposal accepted for `frozen` steps, though the energy varies),
    `"unmixed chains"` (R̂ above `rhat` for `patience` steps, or at the end, where half the chains are fresh),
    `"exploded parameters"` (one beyond `largest`), `"below the bound"` (by more than `sigmas` errors, for `frozen`
    steps: near an eigenstate one step's error is itself uncertain), `"stuck"`, `"excited state"` and
    `"untouched configurations"` (at the end; see `verdicts.py`). `bound` is an energy that no state lies below, the
    operator's own unless given.
    """

    bound: float | None = None
    rhat: float = 1.1
    patience: int = 50
    frozen: int = 5
    largest: float = 1e3
    sigmas: float = 6.0


class Watch:
    """Counts for one run what a guard forbids; also whether the run has settled (no variance) or stands still."""

    def __init__(self, guard: Guard, bound: float = -math.inf, scale: float = 0.0) -> None:
        self.guard, self.scale = guard, scale
        self.bound = bound if guard.bound is None else guard.bound
        self._unmixed = self._frozen = self._below = self._flat = self._still = 0

    def of_energy(
        self, energy: Expectation, acceptance: float, resolution: float = 0.0, length: int = 10**6
    ) -> Trouble | None:
        """What is wrong with a step's energy, of chains of that length; a spread below `resolution` is rounding."""
        guard = self.guard
        if not (math.isfinite(energy) and math.isfinite(energy.variance)):
            return OVERFLOW
        self._flat = self._flat + 1 if energy.variance <= resolution**2 else 0
        moving = energy.variance > (0.1 * self.scale) ** 2
        self._frozen = self._frozen + 1 if acceptance == 0 and moving and not self._flat else 0
        if self._frozen >= guard.frozen:
            return Trouble(
                "frozen chains",
                f"No proposal was accepted for {guard.frozen} steps, so the samples say nothing. "
                "Use `Tempering()`, another rule, or a full sum (`n_samples=None`).",
            )
        most = largest_rhat(guard, length)
        self._unmixed = self._unmixed + 1 if energy.rhat > most else 0
        if self._unmixed >= guard.patience:
            return unmixed(f"stayed above {most:.2f} for {guard.patience} steps")
        self._below = self._below + 1 if self._lies_below(energy) else 0
        if self._below >= guard.frozen:
            return Trouble(
                "below the bound",
                f"The energy {float(energy):.6g} lies below {self.bound:.6g}, which no state does: the "
                "samples are not from |ψ|². Use more samples or proposals, or `Tempering()`.",
            )
        return None

    def _lies_below(self, energy: Expectation) -> bool:
        slack = self.guard.sigmas * energy.stderr + 1e-5 * abs(self.bound)
        return energy < self.bound - slack

    def of_parameters(self, vector: Tensor) -> Trouble | None:
        """What is wrong with new parameters."""
        largest = float(vector.abs().max())
        if not math.isfinite(largest):
            return Trouble(
                "nan", "The step is NaN: the equations of the step have no solution. Raise the shift."
            )
        if largest > self.guard.largest:
            return Trouble(
                "exploded parameters",
                f"A parameter has reached {largest:.3g}. Lower the rate, or raise the shift.",
            )
        return None

    def of_turn(self, angle: float) -> None:
        """Takes in by how much a step turned the state."""
        self._still = self._still + 1 if angle < TURN else 0

    @property
    def settled(self) -> bool:
        """Whether the energy has not varied for five steps: the samples are those of an eigenstate."""
        return self._flat >= SETTLED

    @property
    def still(self) -> bool:
        """Whether no step has turned the state for a while."""
        return self._still >= STILL


def largest_rhat(guard: Guard, length: int) -> float:
    """The R̂ that chains of that length may have: √(1 + 2τ/n) of halves of n is one for a τ of three kept samples."""
    return max(guard.rhat, math.sqrt(1 + 6 / (length // 2 if length >= 8 else max(1, length))))


def unmixed(how: str) -> Trouble:
    """Chains that disagree."""
    return Trouble(
        "unmixed chains",
        f"R̂ {how}: the chains disagree. "
        "Use more proposals a sample (`Metropolis(sweep=…)`), or `Tempering()`.",
    )
