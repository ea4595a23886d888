"""How many configurations a space has, and uniform draws from them: by the number of ways to complete a beginning.

Sites are taken in order. What the rest may be depends on the beginning only through a *state*: the sums that conserved
groups still lack, and the levels of those earlier sites that forbidden patterns tie to later ones. The ways to
complete each state are counted backwards once. Their number grows with the ties: a chain's blockade has two states a
site, that of a square lattice of width w has some 1.6^w.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

State = tuple[tuple[int, ...], tuple[int, ...]]
"""What conserved groups still lack, and the levels of the sites on the frontier."""


class Counts:
    """The ways to complete a beginning of `sites` sites, under conserved sums and forbidden patterns."""

    def __init__(
        self,
        sites: int,
        levels: int,
        conserved: Sequence[tuple[tuple[int, ...], int]],
        forbidden: Sequence[Sequence[tuple[int, int]]],
    ) -> None:
        self.sites, self.levels = sites, levels
        self._owner = {site: k for k, (group, _) in enumerate(conserved) for site in group}
        self._closing: list[list[Sequence[tuple[int, int]]]] = [[] for _ in range(sites)]
        last = list(range(sites))
        for pattern in forbidden:
            end = max(site for site, _ in pattern)
            self._closing[end].append(pattern)
            for site, _ in pattern:
                last[site] = max(last[site], end)
        # The sites before site k that a pattern still needs at or after k.
        self._frontier = [[s for s in range(k) if last[s] >= k] for k in range(sites + 1)]
        self._left = [[sum(site >= k for site in group) for group, _ in conserved] for k in range(sites + 1)]
        self._start: State = (tuple(total for _, total in conserved), ())
        self._tables = self._count()
        self.total: int = self._tables[0][self._start]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Levels (count, sites) drawn uniformly (int64)."""
        level = np.zeros((count, self.sites), dtype=np.int64)
        states: dict[State, np.ndarray] = {self._start: np.arange(count)}
        for site in range(self.sites):
            uniform = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
            after: dict[State, list[np.ndarray]] = {}
            for state, rows in states.items():
                moves = self._moves(site, state)
                weights = np.array([float(self._tables[site + 1].get(to, 0)) for _, to in moves])
                cumulative = weights.cumsum() / weights.sum()
                chosen = np.searchsorted(cumulative, uniform[rows], side="right").clip(max=len(moves) - 1)
                for k, (at, to) in enumerate(moves):
                    taken = rows[chosen == k]
                    level[taken, site] = at
                    if len(taken):
                        after.setdefault(to, []).append(taken)
            states = {state: np.concatenate(parts) for state, parts in after.items()}
        return torch.from_numpy(level)

    def _count(self) -> list[dict[State, int]]:
        """For each site, the ways to complete every state that can be reached before it."""
        reached: list[dict[State, int]] = [{self._start: 0}]
        for site in range(self.sites):
            reached.append(dict.fromkeys((to for s in reached[-1] for _, to in self._moves(site, s)), 0))
        reached[-1] = dict.fromkeys(reached[-1], 1)
        for site in range(self.sites - 1, -1, -1):
            for state in reached[site]:
                reached[site][state] = sum(reached[site + 1][to] for _, to in self._moves(site, state))
        return reached

    def _moves(self, site: int, state: State) -> list[tuple[int, State]]:
        """The levels that the site may take after a state, each with the state it leads to."""
        lacking, held = state
        known = dict(zip(self._frontier[site], held, strict=True))
        moves = []
        for level in range(self.levels):
            known[site] = level
            lacks = lacking
            if site in self._owner:
                k = self._owner[site]
                rest = lacking[k] - level
                if not 0 <= rest <= self._left[site + 1][k] * (self.levels - 1):
                    continue
                lacks = (*lacking[:k], rest, *lacking[k + 1 :])
            if any(all(known[s] == at for s, at in pattern) for pattern in self._closing[site]):
                continue
            moves.append((level, (lacks, tuple(known[s] for s in self._frontier[site + 1]))))
        return moves
