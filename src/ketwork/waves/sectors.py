"""Symmetry sectors: what a wave becomes under a group of permutations of the sites, and under a flip of all levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from ketwork.waves.lattices import Lattice
from ketwork.waves.models.symmetric import Symmetrized, flipped
from ketwork.waves.observables import momenta
from ketwork.waves.operators import Operator

TRIED = 24
"""Group elements that an operator is tried on."""


@dataclass(frozen=True, eq=False)
class Sector:
    """States with ψ(g x) = χ_g ψ(x) for permutations g of the sites, and ψ(x flipped) = flip·ψ(x).

    Args:
        name: how it is called in tables.
        permutations: the group (elements, sites), identity first; (g x)_i = x_{g_i}.
        characters: χ (elements,), of a representation of one dimension.
        flip: +1 or −1 under a flip of all levels (level → levels − 1 − level); None leaves it open.
    """

    name: str
    permutations: np.ndarray
    characters: np.ndarray
    flip: int | None = None

    def __post_init__(self) -> None:
        if self.flip not in (None, 1, -1):
            raise ValueError(f"Argument `flip` must be 1, −1 or None, but is {self.flip}.")
        if np.shape(self.characters) != np.shape(self.permutations)[:1]:
            raise ValueError(
                f"Argument `characters` must have one entry a group element, {len(self.permutations)}, but has shape "
                f"{np.shape(self.characters)}."
            )

    @classmethod
    def momentum(cls, lattice: Lattice, k: Sequence[float], flip: int | None = None) -> Sector:
        """States with ψ(x moved by r) = e^{ik·r} ψ(x), for a lattice's own momentum k (D,), as `momenta` has them.

        >>> from ketwork.waves import chain
        >>> sector = Sector.momentum(chain(4), (math.pi, 0))
        >>> sector.name, sector.characters.real.round(6).tolist()
        ('k = (1, 0)π', [1.0, -1.0, 1.0, -1.0])
        """
        group = lattice.translations()
        moved = lattice.positions[group[:, 0]] - lattice.positions[0]
        name = f"k = ({', '.join(f'{x / math.pi:.3g}' for x in np.asarray(k) + 0.0)})π"
        mark = "" if flip is None else f", flip {'+' if flip > 0 else '−'}"
        return cls(name + mark, group, np.exp(1j * (moved @ np.asarray(k, dtype=float))), flip)

    def module(self, inner: nn.Module) -> Symmetrized:
        """The network projected onto the sector."""
        characters = torch.from_numpy(np.asarray(self.characters, dtype=complex))
        return Symmetrized(inner, self.permutations, characters, flip=self.flip)

    def projector(self, operator: Operator) -> scipy.sparse.csr_matrix:
        """P = Σ_g χ_g* R_g/|G| on `space.states()`, and (1 + flip·F)/2: for small spaces."""
        space = operator.space
        states = space.states(torch.float64)
        size, rows = len(states), np.arange(len(states))
        total = scipy.sparse.csr_matrix((size, size), dtype=complex)
        for g, character in zip(self.permutations, self.characters, strict=True):
            columns = space.index(states[:, g]).numpy()
            values = np.full(size, np.conj(character) / len(self.permutations))
            total = total + scipy.sparse.csr_matrix((values, (rows, columns)), shape=total.shape)
        if self.flip is not None:
            columns = space.index(flipped(space, states)).numpy()
            swap = scipy.sparse.csr_matrix((np.ones(size), (rows, columns)), shape=total.shape)
            total = (total + self.flip * swap @ total) / 2
        return total

    def lowest(self, operator: Operator, k: int) -> np.ndarray:
        """The k least energies of the operator in the sector (fewer where it has fewer states), by Lanczos."""
        matrix, projector = operator.matrix, self.projector(operator)
        size = round(float(projector.diagonal().real.sum()))
        top = float(abs(matrix).sum(1).max()) + 1  # above every eigenvalue
        if matrix.shape[0] <= 512:
            dense = (projector @ matrix @ projector).toarray() + top * (
                np.eye(len(states := projector.diagonal())) - projector.toarray()
            )
            return np.linalg.eigvalsh(dense)[: min(k, size, len(states))]

        def applied(v: np.ndarray) -> np.ndarray:
            inside = projector @ v
            return projector @ (matrix @ inside) + top * (v - inside)

        k = min(k, size)
        start = projector @ np.random.default_rng(0).normal(size=matrix.shape[0])
        if k == 0:
            return np.zeros(0)
        shape = scipy.sparse.linalg.LinearOperator(matrix.shape, matvec=applied, dtype=complex)
        return np.sort(scipy.sparse.linalg.eigsh(shape, k=k, which="SA", v0=start)[0])


def momentum_sectors(lattice: Lattice, flips: Sequence[int | None] = (None,)) -> list[Sector]:
    """The sector of each momentum of a periodic lattice, and of each flip given."""
    return [Sector.momentum(lattice, k.tolist(), flip) for k in momenta(lattice) for flip in flips]


def check_symmetric(operator: Operator, sector: Sector) -> None:
    """Refuses an operator that does not commute with the group or the flip: its states have no such sectors.

    H(g x, g x') = H(x, x') is tried on random configurations: Σ_x' H(g x, x') f(x') and Σ_x' H(x, x') f(g x') of one
    function f without any symmetry.
    """
    space = operator.space
    x = space.random(32, seed=0, dtype=torch.float64)
    weight = torch.randn(space.sites, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def image(at: Tensor, g: np.ndarray | None, flip: bool) -> Tensor:
        reached, elements = operator.connected(at)
        if flip:
            reached = flipped(space, reached)
        if g is not None:
            reached = reached[..., torch.from_numpy(np.asarray(g))]
        return (elements * torch.cos(reached @ weight + 1).sum(-1)).sum(1)

    for g in sector.permutations[:: max(1, len(sector.permutations) // TRIED)]:
        if not torch.allclose(
            image(x[:, torch.from_numpy(np.asarray(g))], None, False), image(x, g, False), atol=1e-9
        ):
            raise ValueError(
                f"Argument `operator` must commute with the permutations of the sector {sector.name!r}, but does not."
            )
    if sector.flip is not None and not torch.allclose(
        image(flipped(space, x), None, False), image(x, None, True), atol=1e-9
    ):
        raise ValueError(
            f"Argument `operator` must commute with the flip of the sector {sector.name!r}, but does not."
        )
