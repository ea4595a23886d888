"""Spaces of configurations: which basis states |i⟩ a wave gives amplitudes to.

A configuration is a row of values, one a site, as the network sees them: +1 and −1 for spin ½, 0 and 1 for a
qubit, 1, 0 and −1 for spin 1, 0 … n for occupation numbers. Behind each value stands a *level* 0 … d−1, its
place in the site's basis: level 0 of a spin is up, which is |0⟩ of a qubit and the +1 eigenstate of Pauli Z.
Site 0 is the leading digit, so the order of `Space.states()` is that of Kronecker products (QuTiP, NumPy).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._compat import renamed
from ketwork._lazy import cached_property
from ketwork.quantum import generator_from
from ketwork.waves.counting import Counts

ENUMERABLE = 2**22
"""The most configurations that are ever listed (a full sum, an exact ket, a sparse matrix)."""

Pattern = tuple[tuple[int, int], ...]
"""Sites with the level of each, which no configuration may have all at once."""


@dataclass(frozen=True)
class Space:
    """The basis of a many-body space: `sites` sites of `levels` levels, some sums of levels held fixed.

    The value of level l is `first + slope·l`. Each entry of `conserved` is a group of sites and the sum that
    their levels keep; groups do not overlap. Each entry of `forbidden` is a pattern of (site, level) pairs that never
    hold together. Make one with `spins`, `qubits`, `spin_one`, `bosons`, `electrons`, `blockaded`.

    >>> space = spins(4, magnetization=0)
    >>> space.size, space.shape
    (6, (2, 2, 2, 2))
    >>> space.states()[0]
    tensor([ 1.,  1., -1., -1.])
    """

    sites: int
    levels: int
    first: float
    slope: float
    conserved: tuple[tuple[tuple[int, ...], int], ...] = ()
    forbidden: tuple[Pattern, ...] = ()

    def __post_init__(self) -> None:
        if self.sites < 1:
            raise ValueError(f"Argument `sites` must be at least 1, but is {self.sites}.")
        for group, total in self.conserved:
            if not 0 <= total <= len(group) * (self.levels - 1):
                raise ValueError(
                    f"A sum of levels over {len(group)} sites must lie between 0 and "
                    f"{len(group) * (self.levels - 1)}, but is {total}: there is no such configuration."
                )
        for pattern in self.forbidden:
            if not pattern or not all(
                0 <= site < self.sites and 0 <= level < self.levels for site, level in pattern
            ):
                raise ValueError(
                    f"A forbidden pattern must name sites 0 … {self.sites - 1} and levels 0 … {self.levels - 1}, "
                    f"but is {pattern}."
                )
        if self.forbidden and not self.size:
            raise ValueError("Argument `forbidden` must leave a configuration, but leaves none.")

    def __repr__(self) -> str:
        fields = [f"sites={self.sites}, levels={self.levels}, first={self.first}, slope={self.slope}"]
        fields.append(f"conserved={self.conserved}")
        if self.forbidden:
            fields.append(f"forbidden={self.forbidden}")
        return f"Space({', '.join(fields)})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions of the sites in the full tensor product."""
        return (self.levels,) * self.sites

    @cached_property
    def size(self) -> int:
        """The number of configurations, counted without listing them."""
        return self._counts.total

    @cached_property
    def _counts(self) -> Counts:
        return Counts(self.sites, self.levels, self.conserved, self.forbidden)

    def value(self, levels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The values of levels: the configurations that a network sees."""
        return levels.to(dtype or torch.get_default_dtype()) * self.slope + self.first

    def level(self, configurations: Tensor) -> Tensor:
        """The levels 0 … d−1 (int64) of configurations given as values."""
        return ((configurations - self.first) / self.slope).round().to(torch.int64)

    def key(self, levels: Tensor) -> Tensor:
        """The place in the full tensor product, Σ level·d^(sites−1−site), of levels (*batch, sites)."""
        powers = self.levels ** torch.arange(self.sites - 1, -1, -1, device=levels.device)
        return (levels * powers).sum(-1)

    def contains(self, configurations: Tensor) -> Tensor:
        """Whether each configuration (*batch, sites) belongs to the space (bool)."""
        level = self.level(configurations)
        inside = ((level >= 0) & (level < self.levels)).all(-1)
        inside &= (self.value(level, configurations.dtype) == configurations).all(-1)
        for group, total in self.conserved:
            inside &= level[..., list(group)].sum(-1) == total
        for pattern in self.forbidden:
            inside &= torch.stack([level[..., site] != at for site, at in pattern]).any(0)
        return inside

    @cached_property
    def keys(self) -> Tensor:
        """The keys of all configurations, ascending (int64).

        Built site by site; a prefix whose sums cannot be completed is dropped, so that a fixed-magnetization
        space of 22 spins costs its own 705,432 entries and not 2²².
        """
        if self.size > ENUMERABLE:
            raise ValueError(
                f"A full sum holds at most {ENUMERABLE} configurations, but this space has {self.size}. "
                "Sample it instead: `waves.Metropolis()`, or `waves.Direct()` with an autoregressive network."
            )
        owner = {site: k for k, (group, _) in enumerate(self.conserved) for site in group}
        left = [len(group) for group, _ in self.conserved]
        totals = [total for _, total in self.conserved]
        prefix = torch.zeros(1, dtype=torch.int64)
        sums = torch.zeros(1, len(left), dtype=torch.int64)
        level = torch.arange(self.levels)
        for site in range(self.sites):
            prefix = (prefix[:, None] * self.levels + level).flatten()
            sums = sums.repeat_interleave(self.levels, 0)
            if site in owner:
                k = owner[site]
                left[k] -= 1
                sums[:, k] += level.repeat(len(sums) // self.levels)
                missing = totals[k] - sums[:, k]
                keep = (missing >= 0) & (missing <= left[k] * (self.levels - 1))
                prefix, sums = prefix[keep], sums[keep]
            for pattern in self.forbidden:
                if max(place for place, _ in pattern) == site:
                    keep = torch.zeros(len(prefix), dtype=torch.bool)
                    for place, at in pattern:
                        keep |= prefix // self.levels ** (site - place) % self.levels != at
                    prefix, sums = prefix[keep], sums[keep]
        return prefix

    def states(self, dtype: torch.dtype | None = None) -> Tensor:
        """All configurations (size, sites), in ascending order of their keys. Refuses spaces beyond 2²²."""
        return self.value(self._digits, dtype)

    def rows(self, rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Some of the configurations (rows, sites), by their places in `states()`."""
        return self.value(self._digits[rows], dtype)

    @cached_property
    def _digits(self) -> Tensor:
        columns = [self.keys // self.levels**place % self.levels for place in range(self.sites - 1, -1, -1)]
        return torch.stack([column.to(torch.uint8) for column in columns], 1)

    def index(self, configurations: Tensor) -> Tensor:
        """The row of each configuration in `states()`."""
        key = self.key(self.level(configurations))
        return torch.searchsorted(self.keys, key) if self.conserved or self.forbidden else key

    @renamed(generator="seed")
    def random(
        self, count: int, *, seed: int | torch.Generator = 0, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Configurations (count, sites) drawn uniformly from the space, conserved sums and forbidden patterns included.

        Site by site: a level is drawn in proportion to the number of ways to complete it.
        """
        return self.value(self._counts.draw(count, generator_from(seed)), dtype)


@renamed(magnetisation="magnetization")
def spins(sites: int, magnetization: int | None = None) -> Space:
    """Spin ½ on every site, values +1 and −1; with `magnetization`, only configurations of that sum."""
    if magnetization is None:
        return Space(sites, 2, 1.0, -2.0)
    if (sites - magnetization) % 2:
        raise ValueError(
            f"Argument `magnetization` must have the parity of the number of sites, but {sites} spins ±1 "
            f"cannot sum to {magnetization}. Use an even number of sites, or magnetization ±1."
        )
    return Space(sites, 2, 1.0, -2.0, ((tuple(range(sites)), (sites - magnetization) // 2),))


def qubits(sites: int, ones: int | None = None) -> Space:
    """Qubits, values 0 and 1; with `ones`, only configurations with that many ones."""
    return Space(sites, 2, 0.0, 1.0, () if ones is None else ((tuple(range(sites)), ones),))


@renamed(magnetisation="magnetization")
def spin_one(sites: int, magnetization: int | None = None) -> Space:
    """Spin 1 on every site, values 1, 0 and −1; with `magnetization`, only configurations of that sum."""
    fixed = () if magnetization is None else ((tuple(range(sites)), sites - magnetization),)
    return Space(sites, 3, 1.0, -1.0, fixed)


def bosons(sites: int, most: int, particles: int | None = None) -> Space:
    """Occupation numbers 0 … `most` on every site; with `particles`, only configurations of that many."""
    return Space(sites, most + 1, 0.0, 1.0, () if particles is None else ((tuple(range(sites)), particles),))


def electrons(orbitals: int, up: int, down: int) -> Space:
    """Occupations of 2·`orbitals` spin orbitals, up on even and down on odd sites (OpenFermion's order)."""
    even, odd = tuple(range(0, 2 * orbitals, 2)), tuple(range(1, 2 * orbitals, 2))
    return Space(2 * orbitals, 2, 0.0, 1.0, ((even, up), (odd, down)))


def blockaded(space: Space, pairs: Iterable[tuple[int, int]], level: int = 1) -> Space:
    """The space without configurations that have both sites of a pair at `level`: a Rydberg blockade.

    >>> from ketwork.waves import chain
    >>> blockaded(qubits(6), chain(6).bonds()).size  # the Lucas number L₆
    18
    """
    patterns = tuple(((int(i), level), (int(j), level)) for i, j in pairs)
    return Space(
        space.sites, space.levels, space.first, space.slope, space.conserved, space.forbidden + patterns
    )
