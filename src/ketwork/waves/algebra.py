"""Sums and products of any operators, and their restriction to a space, by their rows."""

import math
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.waves.operators import Operator
from ketwork.waves.spaces import Space


@dataclass(frozen=True, eq=False)
class Composed(Operator):
    """What sums and products share: the algebra of operators that are kept side by side."""

    space: Space
    parts: tuple[Operator, ...]

    def __add__(self, other: Any) -> Operator:
        """The sum."""
        if isinstance(other, Number):
            return Sum(self.space, (self, Identity(self.space, complex(other))))  # type: ignore[call-overload]
        self._check_same_space(other)
        return Sum(self.space, (self, other))

    def __mul__(self, factor: complex) -> Operator:
        """The operator times a number."""
        return Product(self.space, (Identity(self.space, factor), self))

    def __matmul__(self, other: Operator) -> Operator:
        """The product; the other one acts first."""
        self._check_same_space(other)
        return Product(self.space, (self, other))

    def is_hermitian(self) -> bool:
        """Whether the matrix is Hermitian, on small spaces; else by random rows and their mirror elements."""
        if self.space.size <= 2**14:
            matrix = self.matrix
            return bool(abs(matrix - matrix.conj().T).max() < 1e-10)
        x = self.space.random(64, seed=0, dtype=torch.float64)
        reached, elements = self.connected(x)
        row, place = torch.nonzero(elements, as_tuple=True)
        back, mirrored = self.connected(reached[row, place])
        there = (back == x[row][:, None]).all(-1)
        returned = (mirrored * there).sum(1)
        forth, first = self.connected(x[row])
        sent = (first * (forth == reached[row, place][:, None]).all(-1)).sum(1)
        return bool((sent - returned.conj()).abs().max() < 1e-8)

    @property
    def mean(self) -> float:
        """Not known without the trace of products."""
        return math.nan

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.parts))})"


class Sum(Composed):
    """A + B + …: the rows side by side."""

    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of all parts."""
        rows = [part.connected(x) for part in self.parts]
        dtype = torch.promote_types(torch.float64, rows[0][1].dtype)
        for _, elements in rows[1:]:
            dtype = torch.promote_types(dtype, elements.dtype)
        return torch.cat([r for r, _ in rows], 1), torch.cat([e.to(dtype) for _, e in rows], 1)

    def adjoint(self) -> Operator:
        """Part by part."""
        return Sum(self.space, tuple(part.adjoint() for part in self.parts))

    def rotated(self, sites: frozenset[int] | tuple[int, ...] | list[int]) -> Operator:
        """Part by part."""
        return Sum(self.space, tuple(part.rotated(sites) for part in self.parts))

    @property
    def mean(self) -> float:
        """The sum of the parts'."""
        return sum(part.mean for part in self.parts)

    @property
    def scale(self) -> float:
        """The sum of the parts'."""
        return sum(part.scale for part in self.parts)

    def lower_bound(self) -> float:
        """The sum of the parts'."""
        return sum(part.lower_bound() for part in self.parts)

    @property
    def width(self) -> int:
        """The sum of the parts'."""
        return sum(part.width for part in self.parts)


class Product(Composed):
    """A B …: a row of the first, then the rows of the next at what it reached; the last one acts first on a state."""

    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the first part, each continued by the rest; equal configurations are not merged."""
        reached, elements = self.parts[0].connected(x)
        for part in self.parts[1:]:
            batch, width, sites = reached.shape
            beyond, factors = part.connected(reached.reshape(-1, sites))
            dtype = torch.promote_types(elements.dtype, factors.dtype)
            product = elements.to(dtype)[..., None] * factors.to(dtype).unflatten(0, (batch, width))
            # Where the first element is 0 its configuration may be anything: it must not become NaN further on.
            elements = torch.where(elements[..., None] == 0, torch.zeros((), dtype=dtype), product).flatten(1)
            reached = beyond.reshape(batch, -1, sites)
        return reached, elements

    def adjoint(self) -> Operator:
        """The adjoints in the opposite order."""
        return Product(self.space, tuple(part.adjoint() for part in reversed(self.parts)))

    def rotated(self, sites: frozenset[int] | tuple[int, ...] | list[int]) -> Operator:
        """Part by part: U A B U† = U A U† U B U†."""
        return Product(self.space, tuple(part.rotated(sites) for part in self.parts))

    @cached_property
    def matrix(self) -> scipy.sparse.csr_matrix:
        """The product of the parts' matrices, where each keeps to the space."""
        matrix = self.parts[0].matrix
        for part in self.parts[1:]:
            matrix = matrix @ part.matrix
        return scipy.sparse.csr_matrix(matrix)

    @property
    def scale(self) -> float:
        """The largest energy of a site, times the norms of the other factors, as an estimate of a unit of steps."""
        return math.prod(part.scale for part in self.parts)

    def lower_bound(self) -> float:
        """Minus the product of bounds of the parts' norms."""
        return -math.prod(max(abs(p.lower_bound()), abs((-p).lower_bound())) for p in self.parts)

    @property
    def width(self) -> int:
        """The product of the parts'."""
        return math.prod(part.width for part in self.parts)


@dataclass(frozen=True, eq=False)
class Identity(Composed):
    """A number times the identity."""

    parts: tuple[Operator, ...] = ()
    factor: complex = 1.0

    def __init__(self, space: Space, factor: complex = 1.0) -> None:
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "factor", factor)

    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The configuration itself."""
        factor = self.factor if np.imag(self.factor) else float(np.real(self.factor))
        dtype = torch.complex128 if isinstance(factor, complex) else torch.float64
        return x[:, None], torch.full((len(x), 1), factor, dtype=dtype, device=x.device)

    def adjoint(self) -> Operator:
        """The conjugated number."""
        return Identity(self.space, np.conj(self.factor))

    def rotated(self, sites: frozenset[int] | tuple[int, ...] | list[int]) -> Operator:
        """Itself."""
        return self

    @property
    def mean(self) -> float:
        """The number."""
        return float(np.real(self.factor))

    @property
    def scale(self) -> float:
        """The number's size."""
        return abs(self.factor)

    def lower_bound(self) -> float:
        """The number."""
        return float(np.real(self.factor))

    @property
    def width(self) -> int:
        """One element a row."""
        return 1

    def __repr__(self) -> str:
        return f"Identity({self.factor})"


class Projected(Composed):
    """P H P: what leads out of the space is dropped, as in the Rydberg blockade."""

    def __init__(self, operator: Operator) -> None:
        super().__init__(operator.space, (operator,))

    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The operator's rows, 0 outside the space."""
        reached, elements = self.parts[0].connected(x)
        inside = self.space.contains(reached)
        return torch.where(inside[..., None], reached, x[:, None]), torch.where(inside, elements, 0.0)

    def adjoint(self) -> Operator:
        """That of the operator, restricted."""
        return Projected(self.parts[0].adjoint())

    def rotated(self, sites: frozenset[int] | tuple[int, ...] | list[int]) -> Operator:
        """The rotated operator, restricted: the rotation is diagonal."""
        return Projected(self.parts[0].rotated(sites))

    def is_hermitian(self) -> bool:
        """Whether the operator is."""
        return self.parts[0].is_hermitian()

    @property
    def mean(self) -> float:
        """That of the operator on the full tensor product."""
        return self.parts[0].mean

    @property
    def scale(self) -> float:
        """That of the operator."""
        return self.parts[0].scale

    def lower_bound(self) -> float:
        """That of the operator: a restriction has no lower values."""
        return self.parts[0].lower_bound()

    @property
    def width(self) -> int:
        """That of the operator."""
        return self.parts[0].width
