"""Metropolis chains of |ψ|²: compiled for restricted Boltzmann machines, batched over chains for the rest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.waves.samplers.rules import Rule, default_rule
from ketwork.waves.samplers.sampler import Sampler, Samples
from ketwork.waves.wave import Wave

COMPILED_CHAINS = 32
"""Chains of a compiled sampler: enough for their spread to give standard errors."""


@dataclass(frozen=True)
class Metropolis(Sampler):
    """Metropolis–Hastings with a symmetric rule, `default_rule(space)` unless given.

    `sweep` proposals lie between kept configurations (as many as there are sites by default). A chain starts
    at a random configuration and drops `warmup` of these; a later draw continues with the last configuration
    and drops `skip`. `chains` is 32 where flips run compiled (`RBM.tables`), and otherwise a quarter of the
    samples, since a module evaluates many chains in the time of one.
    """

    rule: Rule | None = None
    chains: int | None = None
    sweep: int | None = None
    warmup: int = 32
    skip: int = 2

    def check(self, wave: Wave) -> None:
        """Refuses a rule that would leave the space."""
        for name in ("chains", "sweep"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ValueError(f"Argument `{name}` must be at least 1, but is {given}.")
        self._rule(wave).check(wave.space)

    def start(self, wave: Wave, n_samples: int, *, generator: torch.Generator) -> Tensor:
        """Random configurations (chains, sites), warmed up."""
        state = wave.space.random(self.kept(wave, n_samples), seed=generator, dtype=wave.dtype)
        return self._run(wave, state.to(wave.device), self.warmup, 1, generator)[1]

    def draw(
        self, wave: Wave, n_samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """The chains carried on: enough configurations of each."""
        return self._run(wave, state, self.skip, -(-n_samples // len(state)), generator)

    def _rule(self, wave: Wave) -> Rule:
        return self.rule or default_rule(wave.space)

    def kept(self, wave: Wave, n_samples: int) -> int:
        """How many chains there are."""
        compiled = self._rule(wave).flips(wave.space) is not None and wave.tables() is not None
        return min(n_samples, self.chains or (COMPILED_CHAINS if compiled else max(16, n_samples // 4)))

    def _run(
        self, wave: Wave, state: Tensor, skip: int, length: int, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        proposals = self.sweep or wave.space.sites
        rule = self._rule(wave)
        moves = rule.flips(wave.space)
        tables = wave.tables()
        if tables is None or moves is None or not len(moves):
            return batched_chains(wave, rule, state, proposals, skip, length, generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        spins, accepted = tables.sweep(
            state,
            moves,
            proposals=proposals,
            skip=skip,
            length=length,
            power=2.0,
            seed=seed,
            inverts=rule.inverts(wave.space),
        )
        x = wave.space.value((1 - spins) / 2, wave.dtype)
        return Samples(x, accepted / (len(state) * length * proposals)), x[:, -1]


def batched_chains(
    wave: Wave,
    rule: Rule,
    x: Tensor,
    proposals: int,
    skip: int,
    length: int,
    generator: torch.Generator,
    beta: Tensor | float = 1.0,
) -> tuple[Samples, Tensor]:
    """Chains of |ψ|^(2β) side by side, one evaluation of the module for each proposal of all of them.

    A chain at an amplitude of 0 takes any proposal that is not.
    """
    space = wave.space
    log = wave.log_and_sign(x)[0].real
    kept, accepted = [], 0
    for round_ in range(skip + length):
        for _ in range(proposals):
            moved = rule.propose(space, x, generator=generator)
            there = wave.log_and_sign(moved)[0].real
            rise = torch.where(
                log == -torch.inf, torch.where(there == -torch.inf, 0.0, torch.inf), there - log
            )
            take = accept(2 * beta * rise, generator)
            x, log = torch.where(take[:, None], moved, x), torch.where(take, there, log)
            accepted += int(take.sum()) if round_ >= skip else 0
        if round_ >= skip:
            kept.append(x)
    return Samples(torch.stack(kept, 1), accepted / (len(x) * length * proposals)), x


def accept(log_ratio: Tensor, generator: torch.Generator) -> Tensor:
    """Whether to accept each move of a log-ratio of probabilities. NaN is never accepted."""
    uniform = torch.rand(log_ratio.shape, generator=generator, dtype=torch.float64)
    return torch.log(uniform).to(log_ratio.device) < log_ratio
