"""Sums of Pauli strings on two-level spaces, and the configurations that they connect.

Each string is a product X^f Z^z with a phase: f says which sites it flips, z which signs it reads. Strings
that flip the same sites share one connected configuration, so an Ising chain reaches N of them and not 2N.
"""

import re
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.waves.algebra import Product, Sum
from ketwork.waves.operators import OnDevice, Operator, real_if_close
from ketwork.waves.spaces import Space

_FACTOR = re.compile(r"([XYZ])(\d+)")
_PRODUCTS = 2**20
"""The most products of two strings that are multiplied out; beyond, a product stays one of two operators."""


class PauliSum(Operator):
    """H = Σ_t c_t P_t, from texts such as `"X0 Y3"` (`""` is the identity) and coefficients.

    Pauli convention: σ and not S = σ/2. A spin's value +1, a qubit's 0, is the +1 eigenstate of Z.

    >>> from ketwork.waves.spaces import spins
    >>> H = PauliSum(spins(2), {"Z0 Z1": 1.0, "X0": 0.5})
    >>> H.to_sparse().toarray()[0]
    array([1. , 0. , 0.5, 0. ])
    """

    def __init__(self, space: Space, terms: Mapping[str, complex] | Iterable[tuple[str, complex]]) -> None:
        pairs = list(terms.items() if isinstance(terms, Mapping) else terms)
        flip = np.zeros((len(pairs), space.sites), dtype=bool)
        sign = np.zeros((len(pairs), space.sites), dtype=bool)
        for row, (text, _) in enumerate(pairs):
            for word in text.split():
                factor = _FACTOR.fullmatch(word)
                if factor is None or int(factor[2]) >= space.sites:
                    raise ValueError(
                        f"A Pauli string reads like 'X0 Z3', sites 0 … {space.sites - 1}, but has '{word}'."
                    )
                site = int(factor[2])
                if flip[row, site] or sign[row, site]:
                    raise ValueError(f"A Pauli string must name each site once, but '{text}' repeats {site}.")
                flip[row, site] = factor[1] in "XY"
                sign[row, site] = factor[1] in "YZ"
        self._set(space, flip, sign, np.array([c for _, c in pairs], dtype=complex).reshape(-1))

    @classmethod
    def from_masks(
        cls, space: Space, flip: np.ndarray, sign: np.ndarray, coefficients: np.ndarray
    ) -> "PauliSum":
        """The same from masks (terms, sites): X where only `flip`, Z where only `sign`, Y where both."""
        made = cls.__new__(cls)
        made._set(space, flip, sign, np.asarray(coefficients, dtype=complex))
        return made

    def _set(self, space: Space, flip: np.ndarray, sign: np.ndarray, coefficients: np.ndarray) -> None:
        if space.levels != 2:
            raise ValueError(f"Pauli strings act on two levels a site, but this space has {space.levels}.")
        self.space = space
        strings, term = np.unique(np.concatenate([flip, sign], 1), axis=0, return_inverse=True)
        summed = np.zeros(len(strings), dtype=complex)
        np.add.at(summed, term.reshape(-1), coefficients)
        kept = np.abs(summed) > 1e-14
        self.flip, self.sign = strings[kept, : space.sites], strings[kept, space.sites :]
        self.coefficients = summed[kept]

    @cached_property
    def patterns(self) -> Tensor:
        """The distinct sets of flipped sites (width, sites), bool; none flipped is the diagonal."""
        return torch.from_numpy(np.unique(self.flip, axis=0).reshape(-1, self.space.sites))

    @cached_property
    def _tables(self) -> OnDevice:
        """Signs to read (terms, sites), coefficients (terms), their pattern (terms), what is rounding, patterns
        (width)."""
        patterns, which = np.unique(self.flip, axis=0, return_inverse=True)
        phase = (-1j) ** (self.flip & self.sign).sum(1)  # ⟨x|P|x'⟩ = (−i)^#Y (−1)^{z·x}
        coefficients = phase * self.coefficients
        rounding = np.zeros(len(patterns))
        np.add.at(rounding, which.reshape(-1), 1e-14 * np.abs(coefficients))
        made = (
            torch.from_numpy(self.sign.astype(float)),
            torch.from_numpy(real_if_close(coefficients)),
            torch.from_numpy(which.reshape(-1)),
            torch.from_numpy(rounding),
            self.patterns.long(),
        )
        return OnDevice(lambda: made)

    def elements(self, x: Tensor) -> Tensor:
        """⟨x|H|x flipped on each of `patterns`⟩ (batch, width), exactly 0 where strings cancel."""
        reads, coefficients, which, rounding, patterns = self._tables(x.device)
        parity = reads @ self.space.level(x).double().T % 2  # (terms, batch): rows add up fast
        signed = (1 - 2 * parity).to(coefficients.dtype).mul_(coefficients[:, None])
        result = signed.new_zeros(len(patterns), len(x)).index_add_(0, which, signed)
        return torch.where(result.abs() > rounding[:, None], result, 0.0).T.contiguous()

    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Every flip of x that a string makes, and its element; elements of strings may cancel to 0."""
        space = self.space
        level = space.level(x)[:, None] ^ self._tables(x.device)[4][None]
        return space.value(level, x.dtype), self.elements(x)

    def rotated(self, sites: frozenset[int] | tuple[int, ...] | list[int]) -> "PauliSum":
        """U H U† with U = Π Z over the sites: X and Y there change sign. The spectrum stays.

        On one sublattice of a bipartite antiferromagnet this is Marshall's sign rule (1955, DOI
        10.1098/rspa.1955.0200), which makes all ground amplitudes positive.
        """
        mask = np.zeros(self.space.sites, dtype=bool)
        mask[list(sites)] = True
        odd = (self.flip & mask).sum(1) % 2
        return PauliSum.from_masks(self.space, self.flip, self.sign, self.coefficients * (1 - 2 * odd))

    def __add__(self, other: Any) -> Operator:
        """The sum: strings are merged; a number is a multiple of the identity."""
        if isinstance(other, Number):
            other = PauliSum(self.space, {"": complex(other)})  # type: ignore[call-overload]
        self._check_same_space(other)
        if not isinstance(other, PauliSum):
            return Sum(self.space, (self, other))
        return PauliSum.from_masks(
            self.space,
            np.concatenate([self.flip, other.flip]),
            np.concatenate([self.sign, other.sign]),
            np.concatenate([self.coefficients, other.coefficients]),
        )

    def __matmul__(self, other: Operator) -> Operator:
        """The product, multiplied out: strings multiply to strings (up to 2²⁰ pairs of them)."""
        self._check_same_space(other)
        pairs = len(self.coefficients) * len(other.coefficients) if isinstance(other, PauliSum) else 0
        if not isinstance(other, PauliSum) or pairs > _PRODUCTS:
            return Product(self.space, (self, other))
        # X^f Z^z X^g Z^w = (−1)^{z·g} X^{f+g} Z^{z+w}, and a string is i^#Y X^f Z^z
        flip = (self.flip[:, None] ^ other.flip[None]).reshape(pairs, -1)
        sign = (self.sign[:, None] ^ other.sign[None]).reshape(pairs, -1)
        ys = (self.flip & self.sign).sum(1)[:, None] + (other.flip & other.sign).sum(1)[None]
        crossed = self.sign.astype(int) @ other.flip.T.astype(int)
        turns = (ys + 2 * crossed).reshape(-1) - (flip & sign).sum(1)
        coefficients = np.outer(self.coefficients, other.coefficients).reshape(-1) * 1j ** (turns % 4)
        return PauliSum.from_masks(self.space, flip, sign, coefficients)

    def adjoint(self) -> "PauliSum":
        """The same strings with conjugated coefficients."""
        return PauliSum.from_masks(self.space, self.flip, self.sign, self.coefficients.conj())

    def __mul__(self, factor: complex) -> "PauliSum":
        """The operator times a number."""
        return PauliSum.from_masks(self.space, self.flip, self.sign, self.coefficients * factor)

    def is_hermitian(self) -> bool:
        """Whether every coefficient is real: Pauli strings are Hermitian and independent."""
        return bool(np.abs(self.coefficients.imag).max(initial=0.0) < 1e-10)

    @property
    def mean(self) -> float:
        """The coefficient of the identity: every other string has trace 0."""
        identity = ~(self.flip | self.sign).any(1)
        return float(self.coefficients[identity].real.sum())

    @property
    def scale(self) -> float:
        """The largest Σ|c| over the strings on one site."""
        return float((np.abs(self.coefficients)[:, None] * (self.flip | self.sign)).sum(0).max(initial=0.0))

    def lower_bound(self) -> float:
        """E∞ − Σ|c|: a string's eigenvalues are ±1."""
        identity = ~(self.flip | self.sign).any(1)
        return self.mean - float(np.abs(self.coefficients[~identity]).sum())

    @property
    def width(self) -> int:
        """How many elements a row may have."""
        return len(self.patterns)

    def __repr__(self) -> str:
        return f"PauliSum({len(self.coefficients)} strings on {self.space.sites} sites)"
