"""Operators on a space, by what variational Monte Carlo asks of them: the row of a configuration.

`connected(x)` gives every x' with a non-zero ⟨x|H|x'⟩ and that element, for a whole batch at once, padded to
one width. Representations, one file each: sums of Pauli strings (`pauli.py`), local matrices (`local.py`), sums and
products of any operators (`algebra.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.waves.spaces import Space


class Operator(ABC):
    """A Hermitian or general operator on a `Space`.

    Operators on one space add (`A + B`, `sum([A, B])`) and multiply (`A @ B`); numbers scale them (`2 * A`) and add
    multiples of the identity (`A - 1.5`).
    """

    space: Space

    @abstractmethod
    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The configurations x' (batch, width, sites) that x reaches, and ⟨x|H|x'⟩ (batch, width).

        Where an element is zero, x' may lie outside the space; skip it.
        """

    @abstractmethod
    def __add__(self, other: Any) -> "Operator":
        """The sum of two operators on the same space, or of one and a number times the identity."""

    @abstractmethod
    def __mul__(self, factor: complex) -> "Operator":
        """The operator times a number."""

    @abstractmethod
    def __matmul__(self, other: "Operator") -> "Operator":
        """The product of two operators on the same space: the other one acts first."""

    @abstractmethod
    def adjoint(self) -> "Operator":
        """The Hermitian conjugate."""

    @abstractmethod
    def is_hermitian(self) -> bool:
        """Whether H = H† (coefficients to 1e−10)."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """Tr H / dim on the full tensor product: the energy E∞ at infinite temperature; NaN where it is not known."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """The largest energy that one site takes part in: a unit for step sizes."""

    @abstractmethod
    def lower_bound(self) -> float:
        """A number that no expectation value lies below: the sum of the terms' own least eigenvalues.

        Anderson's bound (1951, DOI 10.1103/PhysRev.83.1260); cheap, rigorous, not tight.
        """

    @property
    @abstractmethod
    def width(self) -> int:
        """How many elements a row may have."""

    @abstractmethod
    def rotated(self, sites: "frozenset[int] | tuple[int, ...] | list[int]") -> "Operator":
        """U H U† with U = (−1)^(sum of the levels on the sites): the spectrum stays, elements change sign."""

    def __radd__(self, other: Any) -> "Operator":
        """The sum: lets `sum([A, B])` begin with 0."""
        return self + other

    def __rmul__(self, factor: complex) -> "Operator":
        """The operator times a number."""
        return self * factor

    def __truediv__(self, divisor: complex) -> "Operator":
        """The operator over a number."""
        return self * (1 / divisor)

    def __neg__(self) -> "Operator":
        """Minus the operator."""
        return self * -1.0

    def __sub__(self, other: Any) -> "Operator":
        """The difference of two operators on the same space, or of one and a number times the identity."""
        return self + other * -1.0

    def __rsub__(self, other: Any) -> "Operator":
        """A number times the identity, less the operator."""
        return -self + other

    @cached_property
    def matrix(self) -> scipy.sparse.csr_matrix:
        """`to_sparse()`, computed once and kept: for full sums, step after step."""
        return self.to_sparse()

    def to_sparse(self) -> scipy.sparse.csr_matrix:
        """The matrix on `space.states()`, as SciPy CSR, in chunks of rows. Cost: O(size × width).

        Raises:
            ValueError: the space is too large to list, or the operator leads out of it.
        """
        space = self.space
        states = space.states(torch.float64)
        rows, columns, elements = [], [], []
        chunk = max(1, 2**22 // (space.sites * max(1, self.width)))
        for start in range(0, len(states), chunk):
            x = states[start : start + chunk]
            reached, element = self.connected(x)
            row, place = torch.nonzero(element, as_tuple=True)
            inside = reached[row, place]
            if (space.conserved or space.forbidden) and not space.contains(inside).all():
                raise ValueError(LEAVES)
            rows.append(row + start)
            columns.append(space.index(inside))
            elements.append(element[row, place])
        places = (torch.cat(rows).numpy(), torch.cat(columns).numpy())
        return scipy.sparse.csr_matrix((torch.cat(elements).numpy(), places), shape=(len(states),) * 2)

    def _check_same_space(self, other: "Operator") -> None:
        if self.space != other.space:
            raise ValueError("Operators must be on the same space to be added or multiplied.")


LEAVES = (
    "This operator leads out of its space: it does not conserve the fixed sums of the space, or reaches what the space "
    "forbids. Put it on a space without these."
)


def real_if_close(values: np.ndarray) -> np.ndarray:
    """The real part where no imaginary part exceeds 1e−12, so that real problems stay real."""
    return values.real.copy() if not np.abs(values.imag).max(initial=0.0) > 1e-12 else values


class OnDevice:
    """Tensors made once on the CPU, and their copies on other devices, made when they are first used there."""

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]) -> None:
        self._make = make
        self._copies: dict[torch.device, tuple[Tensor, ...]] = {}

    def __call__(self, device: torch.device) -> tuple[Tensor, ...]:
        """The tensors on that device."""
        if device not in self._copies:
            self._copies[device] = tuple(t.to(device) for t in self._make())
        return self._copies[device]
