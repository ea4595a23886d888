"""Waves with a lattice's symmetries built in: a machine with tied weights, a projection of any module."""

import numpy as np
import torch
from torch import Tensor, nn

from ketwork.waves.models.network import Network, normal
from ketwork.waves.models.rbm import RBM, tanh
from ketwork.waves.spaces import Space


class SymmetricRBM(RBM):
    """An RBM that is invariant under permutations g of the sites: its filters slide over the group.

    log ψ(s) = Σ_o a_o Σ_{i in orbit o} s_i + Σ_f Σ_g log cosh(b_f + Σ_i w_fi s_g(i)). `permutations` (group,
    sites) is a lattice's `translations()` or `symmetries()`. It expands to an ordinary machine of
    `filters`·|group| hidden units, so flips run compiled. NetKet's `RBMSymm` is the same function.
    """

    def __init__(
        self,
        permutations: np.ndarray,
        filters: int = 4,
        *,
        std: float = 0.01,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(std=std, dtype=dtype)
        if filters < 1:
            raise ValueError(f"Argument `filters` must be at least 1, but is {filters}.")
        self.filters = filters
        self.permutations = torch.from_numpy(np.asarray(permutations, dtype=np.int64))

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes a (orbits), b (filters) and w (filters, sites)."""
        check_permutations(self.permutations, space)
        if space.levels != 2:
            raise ValueError("SymmetricRBM needs two levels a site. Use `Symmetrized` with another network.")
        self.inverse = self.permutations.argsort(1)
        self.orbits = torch.unique(self.permutations.min(0).values, return_inverse=True)[1]
        count = int(self.orbits.max()) + 1
        self.a = normal(count, std=self.std, generator=generator, dtype=self.dtype)
        self.b = normal(self.filters, std=self.std, generator=generator, dtype=self.dtype)
        self.w = normal(self.filters, space.sites, std=self.std, generator=generator, dtype=self.dtype)

    def expanded(self) -> tuple[Tensor, Tensor, Tensor]:
        """a by site, b by filter and group element, W (filters·group, sites)."""
        group = len(self.permutations)
        return self.a[self.orbits], self.b.repeat_interleave(group), self.w[:, self.inverse].flatten(0, 1)

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log ψ/∂(a, b, w): those of the expanded machine, summed over what is tied."""
        _, b, w = self.expanded()
        s = self.features(x).to(w.dtype)
        t = tanh(s @ w.T + b).unflatten(1, (self.filters, -1))  # (batch, filters, group)
        by_orbit = s.new_zeros(len(s), len(self.a)).index_add_(1, self.orbits, s)
        moved = s[:, self.permutations]  # (batch, group, sites)
        return torch.cat([by_orbit, t.sum(2), (t @ moved).flatten(1)], 1)


class Symmetrized(Network):
    """Any module projected onto a symmetry sector: ψ(x) = Σ_g χ_g* φ(g x)/|G|.

    `characters` χ (group,) are 1 by default, the fully symmetric sector. With `flip` (+1 or −1), also onto the states
    that a flip of all levels multiplies by it. Costs |group| evaluations of the module, twice as many with `flip`.
    """

    def __init__(
        self,
        inner: nn.Module,
        permutations: np.ndarray,
        characters: Tensor | None = None,
        *,
        flip: int | None = None,
    ) -> None:
        super().__init__()
        if flip not in (None, 1, -1):
            raise ValueError(f"Argument `flip` must be 1, −1 or None, but is {flip}.")
        self.flip = flip
        self.inner = inner
        self.permutations = torch.from_numpy(np.asarray(permutations, dtype=np.int64))
        self.characters = characters
        if characters is not None and characters.shape != self.permutations.shape[:1]:
            raise ValueError(
                f"Argument `characters` must have one entry a group element, {len(self.permutations)}, but "
                f"has shape {tuple(characters.shape)}."
            )
        self.holomorphic = bool(getattr(inner, "holomorphic", False))

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Builds the inner network."""
        check_permutations(self.permutations, space)
        if isinstance(self.inner, Network):
            self.inner.build(space, generator)

    def forward(self, x: Tensor) -> Tensor:
        """log of the mean over the group, scaled by the largest term so that nothing overflows."""
        moved = x[:, self.permutations]
        characters = self.characters
        if self.flip is not None:
            moved = torch.cat([moved, flipped(self.space, moved)], 1)
            given = torch.ones(len(self.permutations)) if characters is None else characters
            characters = torch.cat([given, self.flip * given])
        log = self.inner(moved.flatten(0, 1)).unflatten(0, moved.shape[:2])
        if characters is None:
            top = (log.real if log.is_complex() else log).detach().amax(1)
            return top + torch.log(torch.exp(log - top[:, None]).mean(1))
        log = log if log.is_complex() else torch.complex(log, torch.zeros_like(log))
        top = log.real.detach().amax(1)
        weights = characters.conj().to(log.dtype)
        # Where a sector has a node the terms cancel to 0; the floor keeps the logarithm finite.
        return top + torch.log((weights * torch.exp(log - top[:, None])).mean(1) + 1e-30)


def flipped(space: Space, x: Tensor) -> Tensor:
    """Configurations (*batch, sites) with every level turned to levels − 1 − level."""
    return 2 * space.first + space.slope * (space.levels - 1) - x


def check_permutations(permutations: Tensor, space: Space) -> None:
    """Refuses rows that are not permutations of the space's sites."""
    expected = torch.arange(space.sites).expand(len(permutations), -1)
    if permutations.dim() != 2 or not torch.equal(permutations.sort(1).values, expected):
        raise ValueError(
            f"Argument `permutations` must hold permutations of {space.sites} sites, one a row. "
            "Use a lattice's `translations()` or `symmetries()`."
        )
