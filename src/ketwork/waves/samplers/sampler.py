"""What samplers have in common: they keep a state of chains, and draw from |ψ|²."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ketwork._compat import renamed
from ketwork.quantum import generator_from
from ketwork.waves.wave import Wave


@dataclass(frozen=True)
class Samples:
    """Configurations (chains, length, sites), which count alike or by their weights.

    Args:
        configurations: of chains of |ψ|², where there are no weights; else a list (1, n, sites) of distinct ones.
        acceptance: the share of proposals accepted.
        amplitudes: the normalised amplitudes (1, size) of all of `space.states()`, where they are known.
        weights: Σ weights·value/Σ weights is the mean over |ψ|² (1, n).
        inclusion: the probabilities (1, n) with which each was drawn, where they were drawn without replacement.
        missing: an estimate of the share of |ψ|² that the list leaves out.
        rows: the places of the configurations in `space.states()`, where the amplitudes are those of all of these.
    """

    configurations: Tensor
    acceptance: float = 1.0
    amplitudes: Tensor | None = None
    weights: Tensor | None = None
    inclusion: Tensor | None = None
    missing: float = 0.0
    rows: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether it is a full sum."""
        return self.amplitudes is not None and self.rows is None

    @property
    def frozen(self) -> bool:
        """Whether these are chains none of which has ever moved, so that they say nothing of |ψ|², nor of an error."""
        if self.weights is not None:
            return False
        if self.configurations.shape[1] == 1:
            return self.acceptance == 0
        return bool((self.configurations == self.configurations[:, :1]).all())

    @property
    def flat(self) -> Tensor:
        """The configurations in one batch (chains·length, sites)."""
        return self.configurations.flatten(0, 1)

    @property
    def chains(self) -> int:
        """The number of independent chains."""
        return len(self.configurations)


class Sampler(ABC):
    """Draws configurations of a wave. Its state between draws is a tensor, so that it can be saved.

    Where it `splits`, what several processes draw stands side by side; else all of a job draw the same list.
    """

    splits: ClassVar[bool] = True

    @abstractmethod
    def check(self, wave: Wave) -> None:
        """Refuses a wave whose space this sampler would leave or cannot draw from."""

    def start(self, wave: Wave, n_samples: int, *, generator: torch.Generator) -> Tensor:
        """The state before the first draw of `n_samples` configurations: empty where nothing is kept between draws."""
        return torch.empty(0, wave.space.sites, dtype=wave.dtype)

    @abstractmethod
    def draw(
        self, wave: Wave, n_samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """At least `n_samples` configurations (a whole number a chain), and the new state."""

    def kept(self, wave: Wave, n_samples: int) -> int:
        """How many chains the state has; none but for Markov chains."""
        return 0

    @renamed(samples="n_samples", generator="seed")
    def sample(self, wave: Wave, n_samples: int, *, seed: int | torch.Generator = 0) -> Samples:
        """Configurations from fresh chains, warmed up."""
        if n_samples < 1:
            raise ValueError(f"Argument `n_samples` must be at least 1, but is {n_samples}.")
        self.check(wave)
        generator = generator_from(seed)
        state = self.start(wave, n_samples, generator=generator)
        return self.draw(wave, n_samples, state, generator=generator)[0]


class FullSum(Sampler):
    """Every configuration of the space once, weighed by |ψ|²: exact, for spaces of at most 2²² states."""

    splits = False

    def check(self, wave: Wave) -> None:
        """Refuses a space too large to list, naming the limit."""
        _ = wave.space.keys

    def draw(
        self, wave: Wave, n_samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """All states with their |ψ|²; `n_samples` does not matter."""
        psi = wave.amplitudes()
        x = wave.space.states(wave.dtype).to(wave.device)
        return Samples(x[None], 1.0, psi[None], psi.abs().square()[None]), state


class Direct(Sampler):
    """Independent draws from an autoregressive network: no chains, no warm-up, no correlation."""

    def check(self, wave: Wave) -> None:
        """Refuses a network that cannot draw."""
        if not hasattr(wave.module, "draw"):
            raise ValueError(
                f"Direct sampling needs an autoregressive network, but {type(wave.module).__name__} has no "
                "method `draw(count, generator=…)`. Use `waves.Metropolis()`."
            )

    def draw(
        self, wave: Wave, n_samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """Each draw a chain of its own, since draws are independent."""
        with torch.no_grad():
            drawn = wave.module.draw(n_samples, generator=generator)  # type: ignore[operator]
        return Samples(drawn.to(wave.device, wave.dtype)[:, None]), state
