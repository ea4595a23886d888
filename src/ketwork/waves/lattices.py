"""Lattices: sites in space, the bonds between them by distance, and their symmetries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import networkx

TOLERANCE = 1e-6
MOST_SITES = 1000
"""Of a lattice with positions: all pairs are looked at, and 1,024 spins have more states than a float counts."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Sites at `positions` (sites, 2), repeated along the vectors `period` (k, 2) of the periodic directions.

    `cell` are the translations (n, 2) that made the sites from one unit cell. Make one with `chain`,
    `square`, `triangular`, `honeycomb`, `kagome`, or `graph` (any networkx graph: bonds only, no positions).

    >>> square(4).bonds()[:3]
    [(0, 1), (0, 3), (0, 4)]
    >>> len(square(4).bonds()), len(square(4).bonds(2)), len(square(4).symmetries())
    (32, 32, 128)
    """

    name: str
    positions: np.ndarray
    period: np.ndarray
    cell: np.ndarray
    edges: tuple[tuple[int, int], ...] | None = None

    @property
    def sites(self) -> int:
        """The number of sites."""
        return len(self.positions)

    @cached_property
    def distances(self) -> np.ndarray:
        """The distance between each pair of sites, of the nearest periodic images (sites, sites)."""
        images = _combinations(self.period, (-1, 0, 1))
        apart = self.positions[:, None] - self.positions[None]
        return np.linalg.norm(apart[None] + images[:, None, None], axis=-1).min(0)

    def bonds(self, shell: int = 1) -> list[tuple[int, int]]:
        """The pairs (i, j), i < j, at the `shell`-th smallest distance: 1 nearest, 2 next-nearest.

        A pair that touches twice around a short period (a periodic chain of two sites) is one bond.
        """
        if self.edges is not None:
            if shell != 1:
                raise ValueError("Argument `shell` must be 1 for a graph: it has bonds, but no distances.")
            return list(self.edges)
        if self.sites == 1 and shell == 1:
            return []
        upper = self.distances[np.triu_indices(self.sites, 1)]
        lengths = np.unique(upper.round(6))
        if len(lengths) < shell:
            raise ValueError(f"Argument `shell` must be at most {len(lengths)} here, but is {shell}.")
        close = np.abs(self.distances - lengths[shell - 1]) < 1e-5
        return [(int(i), int(j)) for i, j in np.argwhere(np.triu(close, 1))]

    def sublattice(self) -> frozenset[int] | None:
        """The sites not of site 0's colour, where bonds join two colours; None where there are odd loops."""
        near: list[list[int]] = [[] for _ in range(self.sites)]
        for i, j in self.bonds():
            near[i].append(j)
            near[j].append(i)
        colour: dict[int, int] = {}
        for start in range(self.sites):
            if start in colour:
                continue
            colour[start], queue = 0, [start]
            while queue:
                site = queue.pop()
                for other in near[site]:
                    if other not in colour:
                        colour[other] = 1 - colour[site]
                        queue.append(other)
                    elif colour[other] == colour[site]:
                        return None
        return frozenset(site for site, side in colour.items() if side)

    def translations(self) -> np.ndarray:
        """The translations that map the lattice on itself, as permutations (group, sites), identity first."""
        if self.edges is not None:
            return np.arange(self.sites)[None]
        maps = (self._permutation(self.positions + shift) for shift in self.cell)
        return np.array([m for m in maps if m is not None])

    def symmetries(self) -> np.ndarray:
        """The group of translations, rotations and reflections of the lattice: permutations (group, sites).

        Found by trying multiples of 30° and 45°, with and without reflection, about a site, midpoints of
        neighbours and the lattice's centre, and closing the set under composition. Identity first. A graph,
        which has no positions, has the identity alone.
        """
        identity = tuple(range(self.sites))
        if self.edges is not None:
            return np.array([identity])
        generators = {tuple(m.tolist()) for m in [*self.translations(), *self._point_maps()]}
        result, fresh = {identity: None}, [identity]
        while fresh:
            made = (tuple(g[k] for k in member) for member in fresh for g in generators)
            fresh = [m for m in dict.fromkeys(made) if m not in result]
            result |= dict.fromkeys(fresh)
        return np.array(list(result))

    def _point_maps(self) -> list[np.ndarray]:
        here = self.positions[0]
        middles = [(self.positions[i] + self.positions[j]) / 2 for i, j in self.bonds() if i < 3]
        about = [here, *middles, self.positions.mean(0)]
        maps = []
        for centre, degrees, mirror in product(
            about, sorted({*range(0, 360, 30), *range(0, 360, 45)}), (1, -1)
        ):
            turn = math.radians(degrees)
            matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
            moved = (self.positions - centre) * (1, mirror) @ matrix.T + centre
            permutation = self._permutation(moved)
            if permutation is not None and self._keeps_bonds(permutation):
                maps.append(permutation)
        return maps

    def _keeps_bonds(self, permutation: np.ndarray) -> bool:
        moved = {tuple(sorted((int(permutation[i]), int(permutation[j])))) for i, j in self.bonds()}
        return moved == set(self.bonds())

    def _permutation(self, moved: np.ndarray) -> np.ndarray | None:
        """Where each moved site lands among the sites, up to the period; None if one lands beside them."""
        images = _combinations(self.period, range(-2, 3))
        apart = moved[:, None] - self.positions[None]
        gap = np.linalg.norm(apart[None] + images[:, None, None], axis=-1).min(0)  # (sites, sites)
        target = gap.argmin(1)
        fits = gap[np.arange(len(gap)), target].max() < TOLERANCE and len(set(target.tolist())) == len(target)
        return target if fits else None


def chain(length: int, periodic: bool = True) -> Lattice:
    """A chain of `length` sites, periodic unless `periodic=False`."""
    return _bravais("chain", (length, 1), (periodic, False), [[1, 0], [0, 1]], [[0, 0]])


def square(width: int, height: int | None = None, periodic: bool = True) -> Lattice:
    """A square lattice, sites numbered along the second axis first: site = x·height + y."""
    return _bravais("square", (width, height or width), (periodic,) * 2, [[1, 0], [0, 1]], [[0, 0]])


def triangular(width: int, height: int | None = None, periodic: bool = True) -> Lattice:
    """A triangular lattice: six neighbours a site."""
    vectors = [(1.0, 0.0), (0.5, math.sqrt(3) / 2)]
    return _bravais("triangular", (width, height or width), (periodic,) * 2, vectors, [[0, 0]])


def honeycomb(width: int, height: int | None = None, periodic: bool = True) -> Lattice:
    """A honeycomb lattice: two sites a cell, three neighbours a site."""
    vectors = [(math.sqrt(3), 0.0), (math.sqrt(3) / 2, 1.5)]
    return _bravais("honeycomb", (width, height or width), (periodic,) * 2, vectors, [[0, 0], [0, 1]])


def kagome(width: int, height: int | None = None, periodic: bool = True) -> Lattice:
    """A kagome lattice: three sites a cell, four neighbours a site."""
    vectors = [(2.0, 0.0), (1.0, math.sqrt(3))]
    basis = [(0.0, 0.0), (1.0, 0.0), (0.5, math.sqrt(3) / 2)]
    return _bravais("kagome", (width, height or width), (periodic,) * 2, vectors, basis)


def graph(source: "networkx.Graph") -> Lattice:
    """The bonds of any networkx graph, its nodes numbered in the graph's own order."""
    number = {node: k for k, node in enumerate(source.nodes)}
    pairs = ((number[a], number[b]) for a, b in source.edges if a != b)
    edges = tuple(sorted({(min(pair), max(pair)) for pair in pairs}))
    return Lattice("graph", np.zeros((len(number), 2)), np.zeros((0, 2)), np.zeros((1, 2)), edges)


def _bravais(
    name: str,
    extent: tuple[int, int],
    periodic: tuple[bool, bool],
    vectors: ArrayLike,
    basis: Sequence[Sequence[float]],
) -> Lattice:
    """Unit cells at n₁v₁ + n₂v₂, the cell's sites running fastest."""
    if min(extent) < 1:
        raise ValueError(f"A lattice must extend over at least one cell, but got {extent}.")
    sites = extent[0] * extent[1] * len(basis)
    if sites > MOST_SITES:
        raise ValueError(f"A lattice must have at most {MOST_SITES:,} sites, but would have {sites:,}.")
    v = np.array(vectors, dtype=float)
    cells = np.array([n1 * v[0] + n2 * v[1] for n1 in range(extent[0]) for n2 in range(extent[1])])
    positions = (cells[:, None] + np.array(basis, dtype=float)[None]).reshape(-1, 2)
    period = np.array([n * w for n, w, wraps in zip(extent, v, periodic, strict=True) if wraps]).reshape(
        -1, 2
    )
    return Lattice(name, positions, period, cells)


def _combinations(vectors: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Every integer combination of vectors (k, 2): (len(factors)^k, 2)."""
    terms = [np.asarray(c, dtype=float) @ vectors for c in product(factors, repeat=len(vectors))]
    return np.array(terms).reshape(-1, 2)
