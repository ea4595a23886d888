"""Second moments of kets that lie in a known span, exactly, in the coordinates of that span.

With orthonormal states qᵢ, i = 1 … r, that span all kets, ψ = Σ zᵢ qᵢ and Σ w|ψ⟩⟨ψ| = Q†(Σ w z z†)Q: r × r numbers say
what d × d would, and their decomposition costs (r/d)³ of it. So it is for outputs of a linear layer with more outputs
than inputs. Whether kets lie in the span is checked as they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ketwork.networks.moments.grams import add_gram, mirrored
from ketwork.records import Form, Malformed

_CHECKED = 64  # kets of a batch that are compared number by number
_OUTSIDE = 1e-10  # of their squares; the rounding of float32 leaves 1e−13
_OUTSIDE_ALL = 1e-5  # of the squares of all, of which rounding leaves 1e−6
_RIDGE = 1e-15  # of the trace, far below what the sums are exact to


@dataclass
class RangeMoment:
    """`upper` (r, r), the upper block triangle of Σ w z z† in float64, z coordinates on orthonormal `states` (r, d)."""

    states: Annotated[Tensor, Form("ket r d")]
    upper: Annotated[Tensor, Form("sum r r")]

    def check(self) -> None:
        """The states are orthonormal."""
        overlaps = self.states @ self.states.mH
        if not bool((overlaps - torch.eye(len(overlaps)).to(overlaps)).abs().max() < 1e-3):
            raise Malformed("the states that span a layer's vectors must be orthonormal")

    @classmethod
    def empty(cls, states: Tensor) -> RangeMoment:
        """The moment of no kets in the span of these states."""
        wide = torch.complex128 if states.is_complex() else torch.float64
        return cls(states, torch.zeros(len(states), len(states), dtype=wide, device=states.device))

    def add(self, coordinates: Tensor) -> None:
        """Takes in rows of coordinates (n, r). Cost O(n r²)."""
        add_gram(self.upper, coordinates)

    def joins(self, other: RangeMoment) -> bool:
        """Whether the other has the same coordinates, so that both add up."""
        return self.states is other.states or torch.equal(self.states, other.states)

    @property
    def matrix(self) -> Tensor:
        """Σ w z z†, the moment in the coordinates, (r, r)."""
        return mirrored(self.upper)

    @property
    def rows(self) -> Tensor:
        """A factor (r, d) of the moment in all dimensions, in 64 bits a number. Cost O(r² d)."""
        matrix = self.matrix
        ridge = _RIDGE * matrix.diagonal().real.sum() * torch.eye(len(matrix)).to(matrix)
        root, failed = torch.linalg.cholesky_ex(matrix + ridge)
        if bool(failed):
            values, vectors = torch.linalg.eigh(matrix)
            root = vectors * values.clamp(min=0).sqrt().to(vectors)
        return root.mH @ self.states.to(matrix)


@dataclass
class Coordinates:
    """z of rows √w ⟨ψ| on orthonormal states, (n, r), and whether these span the rows: a tensor until it is read."""

    z: Tensor
    within: bool | Tensor

    @classmethod
    def of(cls, rows: Tensor, states: Tensor) -> Coordinates:
        """Those of rows (n, d) on states (r, d). Cost O(n d r)."""
        states = states.to(rows.dtype)
        z = rows @ states.mH
        some = rows[:_CHECKED]
        rest = some - z[:_CHECKED] @ states
        every, inside, missed, sampled = (
            torch.linalg.vector_norm(each, dim=-1).double().square().sum() for each in (rows, z, rest, some)
        )
        return cls(z, (missed <= _OUTSIDE * sampled) & ((every - inside).abs() <= _OUTSIDE_ALL * every))
