"""Lattices of any dimension: sites in space, the bonds between them by distance, and their space groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from ketwork._lazy import cached_property

if TYPE_CHECKING:
    import networkx

TOLERANCE = 1e-6
MOST_SITES = 1000
"""Of a lattice with positions: all pairs are looked at, and 1,024 spins have more states than a float counts."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Sites at `positions` (sites, D), repeated along the vectors `period` (k, D) of the periodic directions.

    `cell` are the translations (n, D) that made the sites from one unit cell, `vectors` (D, D) its primitive vectors.
    Make one with `chain`, `square`, `triangular`, `honeycomb`, `kagome`, `cube`, with `bravais` from vectors and a
    basis in any dimension, or with `graph` (any networkx graph: bonds only, no positions).

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
    vectors: np.ndarray | None = None

    @property
    def sites(self) -> int:
        """The number of sites."""
        return len(self.positions)

    @cached_property
    def distances(self) -> np.ndarray:
        """The distance between each pair of sites, of the nearest periodic images (sites, sites)."""
        apart = self.positions[:, None] - self.positions[None]
        result = np.full(apart.shape[:2], np.inf)
        for image in _combinations(self.period, (-1, 0, 1)):
            np.minimum(result, np.linalg.norm(apart + image, axis=-1), out=result)
        return result

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
        """The space group of the lattice, as permutations (group, sites), identity first.

        Translations, and rotations, reflections, glides and screws in any dimension: x → R x + t with every R that
        maps the primitive vectors on lattice vectors of the same lengths and angles and the periods on periods, and t
        such that one site lands on a site of each class that translations do not join. A graph, which has no
        positions, has the identity alone. Cost: O(|R| classes sites) and the size of the group.
        """
        moves = self.translations()
        if self.edges is not None:
            return moves
        group = dict.fromkeys(map(tuple, moves.tolist()))
        classes = sorted({int(targets.min()) for targets in moves.T})
        for turn in self._turns():
            for site in classes:
                shift = self.positions[site] - turn @ self.positions[0]
                point = self._permutation(self.positions @ turn.T + shift)
                if point is not None and tuple(point.tolist()) not in group:
                    group |= dict.fromkeys(map(tuple, moves[:, point].tolist()))
        return np.array(list(group))

    def _turns(self) -> list[np.ndarray]:
        """The isometries (D, D) that map the Bravais lattice and the periods on themselves."""
        if self.vectors is None:
            raise ValueError(
                "The symmetries of this lattice need its primitive vectors, but `vectors` is None. Make it with "
                "`waves.bravais`."
            )
        reached = _combinations(self.vectors, (-2, -1, 0, 1, 2))
        gram, images = self.vectors @ self.vectors.T, [np.zeros((0, len(self.vectors)))]
        for k, vector in enumerate(self.vectors):
            same = reached[np.abs(np.linalg.norm(reached, axis=1) - np.linalg.norm(vector)) < TOLERANCE]
            images = [
                np.vstack([image, to])
                for image in images
                for to in same
                if np.abs(image @ to - gram[k, :k]).max(initial=0.0) < TOLERANCE
            ]
        back = np.linalg.inv(self.vectors)
        return [turn for image in images if self._keeps_periods(turn := (back @ image).T)]

    def _keeps_periods(self, turn: np.ndarray) -> bool:
        times = self.period @ turn.T @ np.linalg.pinv(self.period)
        return bool(np.abs(np.rint(times) @ self.period - self.period @ turn.T).max(initial=0.0) < TOLERANCE)

    def _permutation(self, moved: np.ndarray) -> np.ndarray | None:
        """Where each moved site lands among the sites, up to the period; None if one lands beside them."""
        gap, target = cKDTree(self._wrapped(self.positions)).query(self._wrapped(moved))
        return target if gap.max() < TOLERANCE and len(np.unique(target)) == len(target) else None

    def _wrapped(self, positions: np.ndarray) -> np.ndarray:
        """The images of positions in the first period."""
        times = np.floor(positions @ np.linalg.pinv(self.period) + TOLERANCE)
        return positions - times @ self.period


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


def cube(width: int, height: int | None = None, depth: int | None = None, periodic: bool = True) -> Lattice:
    """A simple cubic lattice: six neighbours a site; site = (x·height + y)·depth + z.

    >>> len(cube(3).bonds()), len(cube(3).translations()), len(cube(3).symmetries())
    (81, 27, 1296)
    """
    sides = (width, height or width, depth or width)
    return _bravais("cube", sides, (periodic,) * 3, np.eye(3), [[0, 0, 0]])


def bravais(
    vectors: ArrayLike,
    extent: Sequence[int],
    *,
    basis: ArrayLike | None = None,
    periodic: bool | Sequence[bool] = True,
    name: str = "bravais",
) -> Lattice:
    """A lattice of any dimension D from its primitive vectors (D, D), rows, and the sites (n, D) of a cell.

    Args:
        vectors: the primitive vectors v; cells are at n₁v₁ + … + n_D v_D, the last direction running fastest.
        extent: how many cells along each vector (D,).
        basis: the places of a cell's sites, which run fastest; one site at the origin unless given.
        periodic: whether the lattice closes along each vector, or along all.
        name: what it is called.

    >>> fcc = bravais([[0, 1, 1], [1, 0, 1], [1, 1, 0]], (3, 3, 3))
    >>> fcc.sites, len(fcc.bonds()) * 2 // fcc.sites, len(fcc.symmetries())
    (27, 12, 1296)
    """
    v = np.array(vectors, dtype=float)
    if v.ndim != 2 or len(v) != v.shape[1] or not np.isfinite(v).all() or np.linalg.matrix_rank(v) < len(v):
        raise ValueError(
            f"Argument `vectors` must be D independent vectors in D dimensions, but is {v.tolist()}."
        )
    if len(extent) != len(v):
        raise ValueError(f"Argument `extent` must have one number a vector, {len(v)}, but has {len(extent)}.")
    wraps = (periodic,) * len(v) if isinstance(periodic, bool) else tuple(periodic)
    if len(wraps) != len(v):
        raise ValueError(f"Argument `periodic` must have one value a vector, {len(v)}, but has {len(wraps)}.")
    places = np.zeros((1, len(v))) if basis is None else np.array(basis, dtype=float)
    if places.ndim != 2 or not len(places) or places.shape[1] != len(v):
        raise ValueError(
            f"Argument `basis` must be places of at least one site, (sites, {len(v)}), but has shape {places.shape}."
        )
    made = _bravais(name, tuple(int(n) for n in extent), wraps, v, places)
    if float((made.distances + np.eye(made.sites)).min()) < TOLERANCE:
        raise ValueError("Argument `basis` must be distinct places of a cell, but two of them are one.")
    return made


def graph(source: "networkx.Graph") -> Lattice:
    """The bonds of any networkx graph, its nodes numbered in the graph's own order."""
    number = {node: k for k, node in enumerate(source.nodes)}
    pairs = ((number[a], number[b]) for a, b in source.edges if a != b)
    edges = tuple(sorted({(min(pair), max(pair)) for pair in pairs}))
    return Lattice("graph", np.zeros((len(number), 2)), np.zeros((0, 2)), np.zeros((1, 2)), edges)


def _bravais(
    name: str, extent: Sequence[int], periodic: Sequence[bool], vectors: ArrayLike, basis: ArrayLike
) -> Lattice:
    """Unit cells at n₁v₁ + n₂v₂ + …, the cell's sites running fastest."""
    if min(extent) < 1:
        raise ValueError(f"A lattice must extend over at least one cell, but got {tuple(extent)}.")
    v, places = np.array(vectors, dtype=float), np.array(basis, dtype=float)
    sites = math.prod(extent) * len(places)
    if sites > MOST_SITES:
        raise ValueError(f"A lattice must have at most {MOST_SITES:,} sites, but would have {sites:,}.")
    cells = np.array([np.array(n, dtype=float) @ v for n in product(*map(range, extent))])
    positions = (cells[:, None] + places[None]).reshape(-1, len(v))
    around = [n * w for n, w, wraps in zip(extent, v, periodic, strict=True) if wraps]
    return Lattice(name, positions, np.array(around).reshape(-1, len(v)), cells, vectors=v)


def _combinations(vectors: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Every integer combination of vectors (k, 2): (len(factors)^k, 2)."""
    terms = [np.asarray(c, dtype=float) @ vectors for c in product(factors, repeat=len(vectors))]
    return np.array(terms).reshape(-1, vectors.shape[1])
