"""The low-lying spectrum by sector, for any module: each level trained apart from those below it, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from torch import nn

from ketwork.waves.completion import completed
from ketwork.waves.estimates import Expectation
from ketwork.waves.guards import Guard
from ketwork.waves.observables import Measured
from ketwork.waves.operators import Operator
from ketwork.waves.optimizers import Optimizer
from ketwork.waves.overlaps import fidelity
from ketwork.waves.results import Stopped
from ketwork.waves.run import default_sampler, ground_state
from ketwork.waves.samplers.sampler import FullSum, Sampler
from ketwork.waves.sectors import Sector, check_symmetric
from ketwork.waves.wave import Wave

SOLVED = 2**12
"""Spaces up to this size have the energies of each sector computed, and every level is held against them."""

OVERLAP = 0.05
"""Levels that share more than this with a lower one are not another state."""

MISSES = 5e-3
"""A level farther from the exact one than this share of the energy is refused."""


@dataclass(frozen=True)
class Level:
    """One level of a sector.

    Args:
        sector: its name, with that of the operator where several are given.
        index: 0 for the lowest.
        energy: with its standard error; NaN where it is refused.
        wave: the trained wave; None where the run stopped.
        overlap: the largest |⟨φ|ψ⟩|² with a lower level of the sector; None for the lowest.
        exact: the exact energy, where the space is small enough.
        trouble: why it is refused; empty where it is not.
        reached: the energy reached, whether refused or not.
    """

    sector: str
    index: int
    energy: Expectation
    wave: Wave | None
    overlap: Measured | None
    exact: float | None
    trouble: str
    reached: Expectation


@dataclass(frozen=True, repr=False)
class Spectrum:
    """The levels of all sectors, sector by sector."""

    levels: tuple[Level, ...]

    @property
    def refused(self) -> tuple[Level, ...]:
        """The levels that cannot be trusted, each with its `trouble`."""
        return tuple(level for level in self.levels if level.trouble)

    def table(self) -> pd.DataFrame:
        """One row a level: sector, level, energy, energy_stderr, variance, overlap, exact, refused."""
        return pd.DataFrame(
            {
                "sector": level.sector,
                "level": level.index,
                "energy": float(level.energy),
                "energy_stderr": level.energy.stderr,
                "variance": level.reached.variance,
                "overlap": math.nan if level.overlap is None else float(level.overlap.value),
                "exact": math.nan if level.exact is None else level.exact,
                "refused": level.trouble,
            }
            for level in self.levels
        )

    def __repr__(self) -> str:
        head = f"<Spectrum of {len(self.levels)} levels, {len(self.refused)} refused>"
        return f"{head}\n{self.table().to_string(index=False)}"


def spectrum(
    operator: Operator | Mapping[str, Operator],
    module: Callable[[], nn.Module],
    sectors: Sequence[Sector] | None = None,
    *,
    k: int = 1,
    steps: int = 300,
    n_samples: int | None = 1008,
    sampler: Sampler | None = None,
    optimizer: Optimizer | None = None,
    guard: Guard | None = None,
    penalty: float | None = None,
    final: int = 8,
    seed: int = 0,
) -> Spectrum:
    """The k lowest energies in each symmetry sector, with standard errors, each orthogonal to those below it.

    `module()` makes a fresh network for each level, which is projected onto the sector (`Symmetrized`); level 1, 2, …
    also pay for overlaps with the levels before (`ground_state(orthogonal_to=…)`). Several operators, such as one for
    each magnetization, go by name. Networks with signs or phases (complex ones) are needed for most sectors.

    A level is **refused**, its energy NaN and the reason in `trouble`, where its run stopped; where it overlaps with a
    lower one by more than 5 %; where it lies below the one before, which is refused too; where its √σ², within which an
    eigenvalue lies (Weinstein 1934, DOI 10.1073/pnas.20.9.529), exceeds half its distance from a neighbour found; and,
    on spaces of up to 4,096 configurations, where it misses the sector's exact energy by more than 0.5 %.

    Cost: that of a run a level, times the size of the group, plus one evaluation a sample and lower level.

    Raises:
        ValueError: the operator does not commute with a sector's permutations or flip.

    >>> import torch
    >>> from ketwork.waves import RBM, chain, heisenberg, momentum_sectors
    >>> H = heisenberg(chain(4), sign_rule=False)
    >>> network = lambda: RBM(2, dtype=torch.complex128, std=0.1)
    >>> found = spectrum(H, network, momentum_sectors(chain(4))[:1], steps=100, n_samples=None)
    >>> round(float(found.levels[0].energy), 3)
    -8.0
    """
    named = operator if isinstance(operator, Mapping) else {"": operator}
    if k < 1:
        raise ValueError(f"Argument `k` must be at least 1, but is {k}.")
    levels: list[Level] = []
    for name, each in named.items():
        for sector in sectors if sectors is not None else [None]:
            if sector is not None:
                check_symmetric(each, sector)
            title = ", ".join(part for part in (name, "" if sector is None else sector.name) if part)
            exact = _exact(each, sector, k)
            result: list[Level] = []
            for index in range(k if exact is None else min(k, len(exact))):
                result.append(
                    _level(
                        each,
                        module() if sector is None else sector.module(module()),
                        title,
                        result,
                        None if exact is None else float(exact[index]),
                        excited=sector is not None,
                        steps=steps,
                        n_samples=n_samples,
                        sampler=sampler,
                        optimizer=optimizer,
                        guard=guard,
                        penalty=penalty,
                        final=final,
                        seed=seed + index,
                    )
                )
            levels += _separated(result)
    return Spectrum(tuple(levels))


def _exact(operator: Operator, sector: Sector | None, k: int) -> list[float] | None:
    if operator.space.size > SOLVED:
        return None
    if sector is None:
        from_all = Sector("", [list(range(operator.space.sites))], [1.0])  # type: ignore[arg-type]
        return [float(e) for e in from_all.lowest(operator, k)]
    return [float(e) for e in sector.lowest(operator, k)]


def _level(
    operator: Operator,
    module: nn.Module,
    title: str,
    below: list[Level],
    exact: float | None,
    *,
    excited: bool,
    n_samples: int | None,
    sampler: Sampler | None,
    seed: int,
    **settings: object,
) -> Level:
    index = len(below)
    lower = [level.wave for level in below if level.wave is not None]
    try:
        wave = Wave(module, operator.space, seed=seed)
        run = ground_state(
            operator,
            wave,
            n_samples=n_samples,
            sampler=sampler,
            seed=seed,
            excited=excited,
            orthogonal_to=lower,
            **settings,  # type: ignore[arg-type]
        )
    except Stopped as error:
        reached = error.partial.energy
        return _refused(Level(title, index, reached, None, None, exact, "", reached), str(error))
    sampler = FullSum() if n_samples is None else sampler or default_sampler(wave, operator)
    count = max(n_samples or 1, 1) * 4
    drawn = completed(operator, wave, sampler.sample(wave, count, seed=seed + 1))
    shared = [
        fidelity(wave, other, drawn, completed(operator, other, sampler.sample(other, count, seed=seed + 2)))
        for other in lower
    ]
    most = max(shared, key=lambda m: float(m.value), default=None)
    level = Level(title, index, run.energy, wave, most, exact, "", run.energy)
    if most is not None and float(most.value) + 2 * float(most.stderr) > OVERLAP:
        return _refused(
            level, f"it shares {float(most.value):.2g} ± {float(most.stderr):.1g} with a lower level"
        )
    if exact is not None:
        gap = abs(float(run.energy) - exact) - 4 * run.energy.stderr
        if gap > MISSES * max(operator.scale, abs(exact)):
            return _refused(level, f"it misses the sector's exact energy {exact:.8g}")
    return level


def _separated(levels: list[Level]) -> list[Level]:
    """Levels refused where they are out of order, or not separated by their variance."""
    result = list(levels)
    for i in range(1, len(result)):
        one, two = result[i - 1].reached, result[i].reached
        if float(two) < float(one) - 3 * math.hypot(one.stderr, two.stderr) - 1e-6 * abs(float(one)):
            result[i - 1] = _refused(result[i - 1], f"level {i} lies below it, at {float(two):.8g}")
            result[i] = _refused(result[i], "it lies below the level before")
    for i, level in enumerate(result):
        gaps = [
            abs(float(level.reached) - float(other.reached))
            for j, other in enumerate(result)
            if abs(j - i) == 1
        ]
        apart = [gap for gap in gaps if gap > 1e-2 * abs(float(level.reached))]  # else degenerate
        if level.exact is None and apart and math.sqrt(max(level.reached.variance, 0.0)) > min(apart) / 2:
            result[i] = _refused(
                level,
                f"√σ² = {math.sqrt(level.reached.variance):.2g} is more than half the distance of its neighbour",
            )
    return result


def _refused(level: Level, why: str) -> Level:
    return level if level.trouble else replace(level, energy=Expectation(), trouble=why)
