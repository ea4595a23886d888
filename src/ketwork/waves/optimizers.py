"""Optimizers: what to add to the parameters, from log-derivatives and local energies; state in, state out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ketwork.waves.factored import FactoredRows
from ketwork.waves.reconfiguration import Solver, natural_step

State = dict[str, Tensor]
Schedule = Callable[[float], float]
"""A factor of the rate as a function of progress, 0 at the first step and 1 at the last."""


def constant(progress: float) -> float:
    """Always 1."""
    return 1.0


def annealed(progress: float) -> float:
    """1 for the first half, then down to 0.05 along a cosine: late steps average the noise of the samples."""
    late = max(0.0, 2 * progress - 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * late)) / 2


class Optimizer(ABC):
    """Turns centred, weighted log-derivatives O (n, P) and local energies ε (n) into an update (P,).

    `angle`, where an optimizer has one, bounds by how much the update may turn the state: the run measures the
    overlap of the states before and after, and shortens the update until it holds.
    """

    angle: float | None = None
    takes_factors: ClassVar[bool] = False
    """Whether `update` takes `FactoredRows` too, which multiply as O does, in place of O of networks that have them."""

    @abstractmethod
    def update(
        self, o: Any, energies: Tensor, state: State, *, scale: float, progress: float
    ) -> tuple[Tensor, State]:
        """What to add to the parameters, and the new state. `scale` is the operator's."""


@dataclass(frozen=True)
class SR(Optimizer):
    """Stochastic reconfiguration (`natural_step`): a step of imaginary time `rate`/scale.

    Dividing by the operator's scale makes one rate serve energies in any unit. No step turns the state by
    more than `angle` radians: it is shortened to η√(d†Sd), the Fubini–Study angle in its first order, and shortened
    again where the measured overlap says more. That keeps bad samples from throwing the parameters away. `shift` is
    relative to the mean diagonal of S; it falls from its first value to its second, geometrically, over the first
    half of the run, since S says little of a network that has only just left its random start. `momentum` is
    SPRING's.
    """

    rate: float = 0.5
    shift: tuple[float, float] = (1e-1, 1e-3)
    momentum: float = 0.0
    angle: float | None = 0.2
    schedule: Schedule = annealed
    solver: Solver = "auto"
    takes_factors: ClassVar[bool] = True

    def update(
        self, o: Tensor | FactoredRows, energies: Tensor, state: State, *, scale: float, progress: float
    ) -> tuple[Tensor, State]:
        """−η d, with d kept for the momentum."""
        first, last = self.shift
        step = natural_step(
            o,
            energies,
            shift=first * (last / first) ** min(1.0, 2 * progress),
            solver=self.solver,
            previous=state.get("previous"),
            momentum=self.momentum,
        )
        turn = float(torch.linalg.vector_norm(o @ step))
        rate = self.schedule(progress) * min(self.rate / scale, (self.angle or math.inf) / max(turn, 1e-300))
        return -rate * step, {"previous": step} if self.momentum else {}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, arXiv 1412.6980) on the gradient 2 Re O†ε; moves parameters by about `rate`."""

    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    schedule: Schedule = annealed

    def update(
        self, o: Tensor, energies: Tensor, state: State, *, scale: float, progress: float
    ) -> tuple[Tensor, State]:
        """The bias-corrected step; the energy is divided by the operator's scale first."""
        gradient = 2 / scale * (o.mH @ energies)
        square = gradient.abs().square()
        first, second = self.betas
        count = state["count"] + 1 if state else torch.ones((), dtype=torch.float64)
        m = first * state["m"] + (1 - first) * gradient if state else (1 - first) * gradient
        v = second * state["v"] + (1 - second) * square if state else (1 - second) * square
        unbiased = m / (1 - first ** float(count))
        size = (v / (1 - second ** float(count))).sqrt() + self.epsilon
        rate = self.rate * self.schedule(progress)
        return -rate * unbiased / size, {"m": m, "v": v, "count": count}
