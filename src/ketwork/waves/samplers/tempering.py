"""Parallel tempering: chains of |ψ|^(2β) at several β exchange configurations, so that none stays trapped."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.waves.samplers.metropolis import accept, batched_chains
from ketwork.waves.samplers.rules import Rule, default_rule
from ketwork.waves.samplers.sampler import Sampler, Samples
from ketwork.waves.wave import Wave


@dataclass(frozen=True)
class Tempering(Sampler):
    """Replicas at β = 1, …, 1/`replicas` for each of `chains` chains; neighbours swap after each sweep.

    A swap of the configurations at β and β' is accepted with probability min(1, (|ψ'|²/|ψ|²)^(β−β')), which
    keeps the product of the |ψ|^(2β) (Swendsen & Wang 1986, DOI 10.1103/PhysRevLett.57.2607). Only β = 1 is
    kept.
    """

    rule: Rule | None = None
    chains: int = 16
    replicas: int = 8
    sweep: int | None = None
    warmup: int = 32
    skip: int = 2

    def check(self, wave: Wave) -> None:
        """Refuses a rule that would leave the space, and fewer than two replicas."""
        if self.replicas < 2:
            raise ValueError(f"Argument `replicas` must be at least 2, but is {self.replicas}.")
        (self.rule or default_rule(wave.space)).check(wave.space)

    def start(self, wave: Wave, n_samples: int, *, generator: torch.Generator) -> Tensor:
        """Random configurations (replicas·chains, sites), those of β = 1 first, warmed up."""
        state = wave.space.random(self.kept(wave, n_samples), seed=generator, dtype=wave.dtype)
        return self._run(wave, state.to(wave.device), self.warmup, 0, generator)[1]

    def kept(self, wave: Wave, n_samples: int) -> int:
        """How many chains all replicas have."""
        return self.replicas * self.chains

    def draw(
        self, wave: Wave, n_samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """The replicas carried on; the configurations of β = 1."""
        return self._run(wave, state, self.skip, -(-n_samples // self.chains), generator)

    def _run(
        self, wave: Wave, state: Tensor, skip: int, length: int, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        rule, proposals = self.rule or default_rule(wave.space), self.sweep or wave.space.sites
        beta = torch.arange(self.replicas, 0, -1, dtype=torch.float64) / self.replicas
        kept, accepted = [], 0.0
        for round_ in range(skip + length):
            moved, state = batched_chains(
                wave,
                rule,
                state,
                proposals,
                0,
                1,
                generator,
                beta.repeat_interleave(self.chains).to(wave.device),
            )
            state = self._swap(wave, state, beta, round_ % 2, generator)
            if round_ >= skip:
                kept.append(state[: self.chains])
                accepted += moved.acceptance / length
        x = torch.stack(kept, 1) if kept else state[: self.chains, None]
        return Samples(x, accepted), state

    def _swap(
        self, wave: Wave, state: Tensor, beta: Tensor, parity: int, generator: torch.Generator
    ) -> Tensor:
        """Swaps between neighbours (k, k+1) for k of one parity, all chains at once."""
        x = state.reshape(self.replicas, self.chains, -1).clone()
        log = wave.log_and_sign(state)[0].real.reshape(self.replicas, self.chains)
        for k in range(parity, self.replicas - 1, 2):
            take = accept(2 * (beta[k] - beta[k + 1]) * (log[k + 1] - log[k]), generator)[:, None]
            x[k], x[k + 1] = torch.where(take, x[k + 1], x[k]), torch.where(take, x[k], x[k + 1])
        return x.flatten(0, 1)
