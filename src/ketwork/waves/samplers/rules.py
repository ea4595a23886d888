"""Proposals of a Metropolis chain: each maps configurations to configurations, as likely there as back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.spaces import Space


class Rule(ABC):
    """A symmetric proposal. A rule of one's own implements `propose`, and may refuse spaces in `check`."""

    @abstractmethod
    def propose(self, space: Space, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """A proposed configuration for each chain (chains, sites)."""

    def check(self, space: Space) -> None:
        """Refuses a space that proposals would leave, found by trying 256 of them."""
        generator = torch.Generator().manual_seed(0)
        x = space.random(256, generator=generator, dtype=torch.float64)
        moved = self.propose(space, x, generator=generator)
        if moved.shape != x.shape or not space.contains(moved).all():
            raise ValueError(
                f"{type(self).__name__} would leave the space: it proposes configurations outside it. "
                "Where sums are conserved (fixed magnetisation or particle number), use `waves.Exchange()`."
            )

    def flips(self, space: Space) -> np.ndarray | None:
        """The moves as rows of one site, or of two that must differ, where the rule is no more than that."""
        return None


@dataclass(frozen=True)
class Flip(Rule):
    """Changes one site, drawn uniformly, to another level, drawn uniformly."""

    def propose(self, space: Space, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """One site changed in each chain."""
        site = torch.randint(space.sites, (len(x), 1), generator=generator)
        step = torch.randint(1, space.levels, (len(x), 1), generator=generator)
        level = space.level(x)
        return space.value(level.scatter(1, site, (level.gather(1, site) + step) % space.levels), x.dtype)

    def flips(self, space: Space) -> np.ndarray | None:
        """Every site, on two levels."""
        return np.arange(space.sites)[:, None] if space.levels == 2 else None


@dataclass(frozen=True)
class Exchange(Rule):
    """Moves one level from one site to another: spins exchange, particles hop. Sums of levels are conserved.

    Pairs are drawn uniformly from `pairs`, by default all pairs within a conserved group (all pairs where
    there is none); a lattice's `bonds()` make it local. A move that would take a level below 0 or above d−1
    stays put.
    """

    pairs: tuple[tuple[int, int], ...] | None = None

    def __init__(self, pairs: Iterable[tuple[int, int]] | None = None) -> None:
        object.__setattr__(
            self, "pairs", None if pairs is None else tuple((int(i), int(j)) for i, j in pairs)
        )

    def propose(self, space: Space, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """One level moved in each chain."""
        pairs = torch.from_numpy(self._pairs(space))
        pair = pairs[torch.randint(len(pairs), (len(x),), generator=generator)]
        turn = torch.rand(len(x), 1, generator=generator) < 0.5
        pair = torch.where(turn, pair, pair.flip(1))
        level = space.level(x)
        moved = level.scatter_add(1, pair, torch.tensor([[-1, 1]]).expand(len(x), 2))
        inside = ((moved >= 0) & (moved < space.levels)).all(1, keepdim=True)
        return space.value(torch.where(inside, moved, level), x.dtype)

    def flips(self, space: Space) -> np.ndarray | None:
        """The pairs, on two levels: a move happens where the two differ, whichever way it goes."""
        return self._pairs(space) if space.levels == 2 else None

    def _pairs(self, space: Space) -> np.ndarray:
        if self.pairs is not None:
            return np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        groups = [group for group, _ in space.conserved] or [tuple(range(space.sites))]
        free = [(i, j) for group in groups for n, i in enumerate(group) for j in group[n + 1 :]]
        return np.array(free, dtype=np.int64).reshape(-1, 2)


def default_rule(space: Space) -> Rule:
    """Exchange where sums are conserved, flips otherwise."""
    return Exchange() if space.conserved else Flip()
