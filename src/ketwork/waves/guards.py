"""When a run can no longer be trusted: each reason has a name, and stopping beats a wrong number."""

import math
from dataclasses import dataclass

from torch import Tensor

from ketwork.waves.estimates import Estimate


@dataclass(frozen=True)
class Trouble:
    """A reason by its name, and what it means and what to try."""

    reason: str
    explanation: str


@dataclass
class Guard:
    """Watches a run. `bound` is an energy that no state lies below.

    The reasons: `"nan"`, `"frozen chains"` (no proposal accepted for `frozen` steps), `"unmixed chains"` (R̂
    above `rhat` for `patience` steps), `"exploded parameters"` (one beyond `largest`), `"below the bound"`
    (by more than `sigmas` errors, for `frozen` steps: near an eigenstate one step's error is itself
    uncertain).
    """

    bound: float = -math.inf
    rhat: float = 1.1
    patience: int = 50
    frozen: int = 5
    largest: float = 1e3
    sigmas: float = 6.0
    unmixed_for: int = 0
    frozen_for: int = 0
    below_for: int = 0

    def of_energy(self, energy: Estimate, acceptance: float) -> Trouble | None:
        """What is wrong with a step's energy and its samples."""
        if not (math.isfinite(energy.mean) and math.isfinite(energy.variance)):
            return Trouble("nan", "A local energy is NaN or infinite. Lower the rate, or use float64.")
        self.frozen_for = self.frozen_for + 1 if acceptance == 0 else 0
        if self.frozen_for >= self.frozen:
            return Trouble(
                "frozen chains",
                f"No proposal was accepted for {self.frozen} steps, so the samples say nothing. "
                "Use `Tempering()`, another rule, or a full sum (`samples=None`).",
            )
        self.unmixed_for = self.unmixed_for + 1 if energy.rhat > self.rhat else 0
        if self.unmixed_for >= self.patience:
            return Trouble(
                "unmixed chains",
                f"R̂ stayed above {self.rhat} for {self.patience} steps: the chains disagree. "
                "Use more proposals a sample (`Metropolis(sweep=…)`), or `Tempering()`.",
            )
        self.below_for = self.below_for + 1 if self._below(energy) else 0
        if self.below_for >= self.frozen:
            return Trouble(
                "below the bound",
                f"The energy {energy.mean:.6g} lies below {self.bound:.6g}, which no state does: the "
                "samples are not from |ψ|². Use more samples or proposals, or `Tempering()`.",
            )
        return None

    def _below(self, energy: Estimate) -> bool:
        slack = self.sigmas * energy.error + 1e-5 * abs(self.bound)
        return energy.mean < self.bound - slack

    def of_parameters(self, vector: Tensor) -> Trouble | None:
        """What is wrong with new parameters."""
        largest = float(vector.abs().max())
        if not math.isfinite(largest):
            return Trouble(
                "nan", "The step is NaN: the equations of the step have no solution. Raise the shift."
            )
        if largest > self.largest:
            return Trouble(
                "exploded parameters",
                f"A parameter has reached {largest:.3g}. Lower the rate, or raise the shift.",
            )
        return None
