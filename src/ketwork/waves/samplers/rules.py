"""Proposals of a Metropolis chain: each maps configurations to configurations, as likely there as back."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.operators import Operator
from ketwork.waves.spaces import Space


class Rule(ABC):
    """A symmetric proposal. A rule of one's own implements `propose`, and may refuse spaces in `check`."""

    @abstractmethod
    def propose(self, space: Space, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """A proposed configuration for each chain (chains, sites)."""

    def check(self, space: Space) -> None:
        """Refuses a space that proposals would leave, found by trying 256 of them."""
        generator = torch.Generator().manual_seed(0)
        x = space.random(256, seed=generator, dtype=torch.float64)
        moved = self.propose(space, x, generator=generator)
        if moved.shape != x.shape or not space.contains(moved).all():
            raise ValueError(
                f"{type(self).__name__} would leave the space: it proposes configurations outside it. "
                "Where sums are conserved (fixed magnetization or particle number), use `waves.Exchange()`."
            )

    def flips(self, space: Space) -> np.ndarray | None:
        """The moves as rows of one site, or of two that must differ, where the rule is no more than that."""
        return None

    def inverts(self, space: Space) -> bool:
        """Whether all sites may turn at once, beside `flips`."""
        return False


@dataclass(frozen=True)
class Flip(Rule):
    """Changes one site, drawn uniformly, to another level, drawn uniformly.

    With `invert`, one proposal in so many sites instead turns all levels l to d − 1 − l at once: the cluster move of an
    ordered phase, which joins a state to its mirror image that single flips do not reach.
    """

    invert: bool = False

    def propose(self, space: Space, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """One site changed in each chain."""
        site = torch.randint(space.sites, (len(x), 1), generator=generator).to(x.device)
        step = torch.randint(1, space.levels, (len(x), 1), generator=generator).to(x.device)
        level = space.level(x)
        moved = level.scatter(1, site, (level.gather(1, site) + step) % space.levels)
        if self.invert:
            turned = torch.rand(len(x), 1, generator=generator) * space.sites < 1
            moved = torch.where(turned.to(x.device), space.levels - 1 - level, moved)
        return self._inside(space, space.value(moved, x.dtype), x)

    def _inside(self, space: Space, moved: Tensor, x: Tensor) -> Tensor:
        """Proposals that a forbidden pattern meets stay put."""
        return torch.where(space.contains(moved)[:, None], moved, x) if space.forbidden else moved

    def flips(self, space: Space) -> np.ndarray | None:
        """Every site, on two levels."""
        simple = space.levels == 2 and not space.forbidden
        return np.arange(space.sites)[:, None] if simple else None

    def inverts(self, space: Space) -> bool:
        """Where `invert` says so."""
        return self.invert


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
        if not len(pairs):
            return x
        pair = pairs[torch.randint(len(pairs), (len(x),), generator=generator)]
        turn = torch.rand(len(x), 1, generator=generator) < 0.5
        pair = torch.where(turn, pair, pair.flip(1)).to(x.device)
        level = space.level(x)
        moved = level.scatter_add(1, pair, torch.tensor([[-1, 1]], device=x.device).expand(len(x), 2))
        inside = ((moved >= 0) & (moved < space.levels)).all(1, keepdim=True)
        moved = space.value(torch.where(inside, moved, level), x.dtype)
        return torch.where(space.contains(moved)[:, None], moved, x) if space.forbidden else moved

    def flips(self, space: Space) -> np.ndarray | None:
        """The pairs, on two levels: a move happens where the two differ, whichever way it goes."""
        return self._pairs(space) if space.levels == 2 and not space.forbidden else None

    def _pairs(self, space: Space) -> np.ndarray:
        if self.pairs is not None:
            return np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        groups = [group for group, _ in space.conserved] or [tuple(range(space.sites))]
        free = [(i, j) for group in groups for n, i in enumerate(group) for j in group[n + 1 :]]
        return np.array(free, dtype=np.int64).reshape(-1, 2)


def default_rule(space: Space, operator: Operator | None = None) -> Rule:
    """Exchange where sums are conserved, flips otherwise; with inversion where the operator is even in it."""
    if space.conserved:
        return Exchange()
    return Flip(invert=operator is not None and space.levels == 2 and _even(operator))


def _even(operator: Operator) -> bool:
    """Whether inverting all levels changes no element, tried on 32 random configurations."""
    space = operator.space
    x = space.random(32, seed=0, dtype=torch.float64)
    mirrored = space.value(space.levels - 1 - space.level(x), x.dtype)
    if not bool(space.contains(mirrored).all()):
        return False
    (reached, element), (there, other) = operator.connected(x), operator.connected(mirrored)
    row = torch.where(element[..., None] == 0, x[:, None], reached)
    back = space.value(space.levels - 1 - space.level(there), x.dtype)
    back = torch.where(other[..., None] == 0, x[:, None], back)
    return bool((element - other).abs().max() < 1e-10 and (row - back).abs().max() < 1e-10)
