"""What samplers have in common: they keep a state of chains, and draw from |ψ|²."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.waves.wave import Wave


@dataclass(frozen=True)
class Samples:
    """Configurations (chains, length, sites); a full sum also has their normalised amplitudes (1, size)."""

    configurations: Tensor
    acceptance: float = 1.0
    amplitudes: Tensor | None = None

    @property
    def flat(self) -> Tensor:
        """The configurations in one batch (chains·length, sites)."""
        return self.configurations.flatten(0, 1)

    @property
    def weights(self) -> Tensor | None:
        """|ψ|² of a full sum (1, size); None for samples, which weigh the same."""
        return None if self.amplitudes is None else self.amplitudes.abs().square()

    @property
    def chains(self) -> int:
        """The number of independent chains."""
        return len(self.configurations)


class Sampler(ABC):
    """Draws configurations of a wave. Its state between draws is a tensor, so that it can be saved."""

    @abstractmethod
    def check(self, wave: Wave) -> None:
        """Refuses a wave whose space this sampler would leave or cannot draw from."""

    @abstractmethod
    def start(self, wave: Wave, samples: int, *, generator: torch.Generator) -> Tensor:
        """The state before the first draw of `samples` configurations."""

    @abstractmethod
    def draw(
        self, wave: Wave, samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """At least `samples` configurations (a whole number a chain), and the new state."""

    def sample(self, wave: Wave, samples: int, *, generator: torch.Generator) -> Samples:
        """Configurations from fresh chains, warmed up."""
        if samples < 1:
            raise ValueError(f"Argument `samples` must be at least 1, but is {samples}.")
        self.check(wave)
        return self.draw(wave, samples, self.start(wave, samples, generator=generator), generator=generator)[
            0
        ]


class FullSum(Sampler):
    """Every configuration of the space once, weighed by |ψ|²: exact, for spaces of at most 2²² states."""

    def check(self, wave: Wave) -> None:
        """Refuses a space too large to list, naming the limit."""
        _ = wave.space.keys

    def start(self, wave: Wave, samples: int, *, generator: torch.Generator) -> Tensor:
        """Nothing is kept between draws."""
        return torch.empty(0, wave.space.sites, dtype=wave.dtype)

    def draw(
        self, wave: Wave, samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """All states with their |ψ|²; `samples` does not matter."""
        return Samples(wave.space.states(wave.dtype)[None], 1.0, wave.amplitudes()[None]), state


class Direct(Sampler):
    """Independent draws from an autoregressive network: no chains, no warm-up, no correlation."""

    def check(self, wave: Wave) -> None:
        """Refuses a network that cannot draw."""
        if not hasattr(wave.module, "draw"):
            raise ValueError(
                f"Direct sampling needs an autoregressive network, but {type(wave.module).__name__} has no "
                "method `draw(count, generator=…)`. Use `waves.Metropolis()`."
            )

    def start(self, wave: Wave, samples: int, *, generator: torch.Generator) -> Tensor:
        """Nothing is kept between draws."""
        return torch.empty(0, wave.space.sites, dtype=wave.dtype)

    def draw(
        self, wave: Wave, samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """Each draw a chain of its own, since draws are independent."""
        with torch.no_grad():
            drawn = wave.module.draw(samples, generator=generator)  # type: ignore[operator]
        return Samples(drawn.to(wave.dtype)[:, None]), state
