"""Operators on a space, by what variational Monte Carlo asks of them: the row of a configuration.

`connected(x)` gives every x' with a non-zero ⟨x|H|x'⟩ and that element, for a whole batch at once, padded to
one width. Two representations, one file each: sums of Pauli strings (`pauli.py`) and local matrices
(`local.py`).
"""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ketwork.waves.spaces import Space


class Operator(ABC):
    """A Hermitian or general operator on a `Space`. Operators on one space add; numbers scale them."""

    space: Space

    @abstractmethod
    def connected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The configurations x' (batch, width, sites) that x reaches, and ⟨x|H|x'⟩ (batch, width).

        Where an element is zero, x' may lie outside the space; skip it.
        """

    @abstractmethod
    def __add__(self, other: "Operator") -> "Operator":
        """The sum of two operators on the same space."""

    @abstractmethod
    def __mul__(self, factor: complex) -> "Operator":
        """The operator times a number."""

    @abstractmethod
    def is_hermitian(self) -> bool:
        """Whether H = H† (coefficients to 1e−10)."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """Tr H / dim on the full tensor product: the energy E∞ at infinite temperature."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """The largest energy that one site takes part in: a unit for step sizes."""

    @abstractmethod
    def lower_bound(self) -> float:
        """A number that no expectation value lies below: the sum of the terms' own least eigenvalues.

        Anderson's bound (1951, DOI 10.1103/PhysRev.83.1260); cheap, rigorous, not tight.
        """

    def __rmul__(self, factor: complex) -> "Operator":
        """The operator times a number."""
        return self * factor

    def __neg__(self) -> "Operator":
        """Minus the operator."""
        return self * -1.0

    def __sub__(self, other: "Operator") -> "Operator":
        """The difference of two operators on the same space."""
        return self + other * -1.0

    @cached_property
    def matrix(self) -> scipy.sparse.csr_matrix:
        """`to_sparse()`, computed once and kept: for full sums, step after step."""
        return self.to_sparse()

    def to_sparse(self) -> scipy.sparse.csr_matrix:
        """The matrix on `space.states()`, as SciPy CSR, in chunks of rows. Cost: O(size × width)."""
        space = self.space
        states = space.states(torch.float64)
        rows, columns, elements = [], [], []
        chunk = max(1, 2**22 // (space.sites * max(1, self.width)))
        for start in range(0, len(states), chunk):
            x = states[start : start + chunk]
            reached, element = self.connected(x)
            row, place = torch.nonzero(element, as_tuple=True)
            inside = reached[row, place]
            if space.conserved and not space.contains(inside).all():
                raise ValueError(
                    "This operator leads out of its space: it does not conserve the fixed sums of the space. "
                    "Put it on a space without them."
                )
            rows.append(row + start)
            columns.append(space.index(inside))
            elements.append(element[row, place])
        places = (torch.cat(rows).numpy(), torch.cat(columns).numpy())
        return scipy.sparse.csr_matrix((torch.cat(elements).numpy(), places), shape=(len(states),) * 2)

    @property
    @abstractmethod
    def width(self) -> int:
        """How many elements a row may have."""

    def _check_same_space(self, other: "Operator") -> None:
        if self.space != other.space:
            raise ValueError("Operators must be on the same space to be added.")


def real_if_close(values: np.ndarray) -> np.ndarray:
    """The real part where no imaginary part exceeds 1e−12, so that real problems stay real."""
    return values.real.copy() if not np.abs(values.imag).max(initial=0.0) > 1e-12 else values
