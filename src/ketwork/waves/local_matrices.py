"""Sums of local matrices, and the configurations that they connect: any number of levels a site, any sites a term.

Every local matrix is a sum of shifts: M = Σ_s D_s X^s, where X^s moves the levels of the term's sites by s
(modulo d) and D_s is diagonal, a table over those sites' levels. Terms that shift alike share a connected
configuration.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.algebra import Product, Sum
from ketwork.waves.operators import Operator, real_if_close
from ketwork.waves.pauli import PauliSum
from ketwork.waves.spaces import Space

Term = tuple[tuple[int, ...], np.ndarray]

SIDE = 1024
"""The largest side of a matrix that products and sums with Pauli strings are multiplied out to."""


@dataclass(frozen=True)
class _Shift:
    """One connected configuration: the levels move by `step`; the element is the sum of the tables."""

    step: tuple[int, ...]
    tables: tuple[tuple[tuple[int, ...], Tensor], ...]


class LocalSum(Operator):
    """H = Σ M_t, from pairs (sites, matrix); a matrix is d^k × d^k, in the order of the sites given.

    >>> from ketwork.waves.spaces import spin_one
    >>> H = LocalSum(spin_one(2), [((0,), np.diag([1.0, 0.0, -1.0]))])
    >>> H.to_sparse().diagonal()
    array([ 1.,  1.,  1.,  0.,  0.,  0., -1., -1., -1.])
    """

    def __init__(self, space: Space, terms: Iterable[tuple[Iterable[int], np.ndarray]]) -> None:
        self.space = space
        merged: dict[tuple[int, ...], np.ndarray] = {}
        for where, given in terms:
            sites = tuple(int(site) for site in where)
            matrix = np.asarray(given, dtype=complex)
            side = space.levels ** len(sites)
            if len(set(sites)) != len(sites) or not all(0 <= site < space.sites for site in sites):
                raise ValueError(f"A term must name distinct sites 0 … {space.sites - 1}, but names {sites}.")
            if matrix.shape != (side, side):
                raise ValueError(
                    f"A term on {len(sites)} sites must be {side} × {side}, but is {matrix.shape}."
                )
            sites, matrix = _sorted(sites, matrix, space.levels)
            merged[sites] = merged[sites] + matrix if sites in merged else matrix
        self.terms: tuple[Term, ...] = tuple(merged.items())
        self._shifts = self._by_shift()

    def _by_shift(self) -> tuple[_Shift, ...]:
        levels = self.space.levels
        gathered: dict[tuple[int, ...], list[tuple[tuple[int, ...], np.ndarray]]] = {}
        for sites, matrix in self.terms:
            rows = np.array(list(product(range(levels), repeat=len(sites)))).reshape(-1, len(sites))
            weights = levels ** np.arange(len(sites) - 1, -1, -1)
            for step in rows:
                columns = (rows + step) % levels @ weights
                table = matrix[np.arange(len(rows)), columns]
                if np.abs(table).max(initial=0.0) > 1e-14:
                    change = np.zeros(self.space.sites, dtype=int)
                    change[list(sites)] = step
                    gathered.setdefault(tuple(change.tolist()), []).append((sites, table))
        complex_ = any(np.abs(t.imag).max(initial=0) > 1e-12 for group in gathered.values() for _, t in group)
        return tuple(
            _Shift(step, tuple((s, torch.from_numpy(t if complex_ else real_if_close(t))) for s, t in group))
            for step, group in gathered.items()
        )

    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One shifted configuration for each distinct shift, and its element."""
        space = self.space
        level = space.level(x)
        steps = torch.tensor([shift.step for shift in self._shifts], dtype=torch.int64, device=x.device)
        reached = (level[:, None] + steps.reshape(-1, space.sites)) % space.levels
        elements = [torch.zeros(0, dtype=torch.float64)]
        for shift in self._shifts:
            total = torch.zeros(len(x), dtype=shift.tables[0][1].dtype, device=x.device)
            for sites, table in shift.tables:
                place = torch.zeros(len(x), dtype=torch.int64, device=x.device)
                for site in sites:
                    place = place * space.levels + level[:, site]
                total = total + table.to(x.device)[place]
            elements.append(total)
        result = torch.stack(elements[1:], 1) if self._shifts else x.new_zeros((len(x), 0))
        return space.value(reached, x.dtype), result

    def __add__(self, other: Any) -> Operator:
        """The sum: terms on the same sites are merged; short Pauli strings are turned into matrices."""
        if isinstance(other, Number):
            other = LocalSum(self.space, [((0,), complex(other) * np.eye(self.space.levels))])  # type: ignore[call-overload]
        self._check_same_space(other)
        if isinstance(other, PauliSum) and _longest(other) <= 6:
            other = LocalSum(self.space, _matrices(other))
        if not isinstance(other, LocalSum):
            return Sum(self.space, (self, other))
        return LocalSum(self.space, [*self.terms, *other.terms])

    def __matmul__(self, other: Operator) -> Operator:
        """The product, term by term on the sites of both, where their matrices have a side of at most 1,024."""
        self._check_same_space(other)
        if isinstance(other, PauliSum) and _longest(other) <= 6:
            other = LocalSum(self.space, _matrices(other))
        if not isinstance(other, LocalSum):
            return Product(self.space, (self, other))
        levels = self.space.levels
        pairs = [(a, b, tuple(sorted({*a[0], *b[0]}))) for a in self.terms for b in other.terms]
        if any(levels ** len(sites) > SIDE for _, _, sites in pairs):
            return Product(self.space, (self, other))
        return LocalSum(
            self.space, [(sites, _on(a, sites, levels) @ _on(b, sites, levels)) for a, b, sites in pairs]
        )

    def adjoint(self) -> "LocalSum":
        """Every matrix conjugated and transposed."""
        return LocalSum(self.space, [(sites, matrix.conj().T) for sites, matrix in self.terms])

    def rotated(self, sites: frozenset[int] | tuple[int, ...] | list[int]) -> "LocalSum":
        """U H U† with U = (−1)^(sum of the levels on the sites): elements that change it by 1 change sign."""
        levels, chosen = self.space.levels, set(sites)
        terms = []
        for where, matrix in self.terms:
            rows = np.array(list(product(range(levels), repeat=len(where)))).reshape(-1, len(where))
            sign = 1 - 2 * (rows[:, [site in chosen for site in where]].sum(1) % 2)
            terms.append((where, sign[:, None] * matrix * sign[None]))
        return LocalSum(self.space, terms)

    def __mul__(self, factor: complex) -> "LocalSum":
        """The operator times a number."""
        return LocalSum(self.space, [(sites, matrix * factor) for sites, matrix in self.terms])

    def is_hermitian(self) -> bool:
        """Whether every term is Hermitian, those on the same sites summed first."""
        return all(np.abs(m - m.conj().T).max(initial=0.0) < 1e-10 for _, m in self.terms)

    @property
    def mean(self) -> float:
        """Σ Tr M / d^k."""
        return float(sum(np.trace(m).real / len(m) for _, m in self.terms))

    @property
    def scale(self) -> float:
        """The largest sum, over the terms on one site, of half the spread of the term's eigenvalues."""
        load = np.zeros(self.space.sites)
        for sites, matrix in self.terms:
            values = np.linalg.eigvalsh((matrix + matrix.conj().T) / 2)
            load[list(sites)] += (values[-1] - values[0]) / 2
        return float(load.max(initial=0.0))

    def lower_bound(self) -> float:
        """The sum of the terms' least eigenvalues."""
        return float(sum(np.linalg.eigvalsh((m + m.conj().T) / 2)[0] for _, m in self.terms))

    @property
    def width(self) -> int:
        """How many elements a row may have."""
        return len(self._shifts)

    def __repr__(self) -> str:
        return f"LocalSum({len(self.terms)} terms on {self.space.sites} sites)"


def _sorted(sites: tuple[int, ...], matrix: np.ndarray, levels: int) -> Term:
    """The same term with its sites ascending."""
    order = np.argsort(sites)
    axes = matrix.reshape((levels,) * (2 * len(sites))).transpose([*order, *(order + len(sites))])
    return tuple(sites[k] for k in order), axes.reshape(matrix.shape)


def _on(term: Term, sites: tuple[int, ...], levels: int) -> np.ndarray:
    """A term's matrix on more sites, with the identity on those it does not name."""
    own, matrix = term
    rest = tuple(site for site in sites if site not in own)
    return _sorted((*own, *rest), np.kron(matrix, np.eye(levels ** len(rest))), levels)[1]


def _longest(operator: PauliSum) -> int:
    return int((operator.flip | operator.sign).sum(1).max(initial=0))


def _matrices(operator: PauliSum) -> list[Term]:
    """The strings of a Pauli sum as local matrices, each on its own sites."""
    x, z = np.array([[0, 1], [1, 0]], dtype=complex), np.diag([1.0 + 0j, -1.0])
    terms = []
    for flip, sign, coefficient in zip(operator.flip, operator.sign, operator.coefficients, strict=True):
        sites = tuple(int(s) for s in np.flatnonzero(flip | sign)) or (0,)
        matrix = np.array([[coefficient]])
        for site in sites:
            factor = (
                1j * x @ z
                if flip[site] and sign[site]
                else x
                if flip[site]
                else z
                if sign[site]
                else np.eye(2)
            )
            matrix = np.kron(matrix, factor)
        terms.append((sites, matrix))
    return terms
