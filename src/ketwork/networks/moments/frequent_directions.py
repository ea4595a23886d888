"""A second moment in bounded memory: the Frequent Directions sketch, with the error bound that it really has.

A matrix A of any number of rows is kept as at most 2ℓ rows B. When they are full, the singular values shrink,
σᵢ² → max(σᵢ² − δₜ, 0) with δₜ the (ℓ+1)-th of the σ², which frees half of them (Liberty 2013, KDD; Ghashami, Liberty,
Phillips, Woodruff 2016, arXiv 1501.01711). A shrink takes away something between 0 and δₜ·1, so that always

    0 ≤ A†A − B†B ≤ δ·1    with δ = Σ δₜ,

and it takes at least (ℓ+1) δₜ off the trace: δ ≤ (‖A‖² − ‖B‖²)/(ℓ+1) ≤ ‖A‖²/(ℓ+1), the bound known beforehand. Where A
has rank ℓ or less, nothing is lost. Sketches of parts add: their rows together are a sketch of all, and the δ add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ketwork.records import Count, Form, Malformed


@dataclass(eq=False)
class FrequentDirections:
    """`rows` B (r, d), r ≤ 2 · `rank`, with 0 ≤ A†A − B†B ≤ `slack` · 1 and Tr(A†A − B†B) = `lost`.

    Everything is in float64 or complex128; both statements hold to the rounding of these.

    >>> sketch = FrequentDirections.empty(3, rank=1, like=torch.zeros(0, dtype=torch.float64))
    >>> sketch.add(torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [2.0, 0, 0]]))
    >>> sketch.rows.shape, round(sketch.slack, 6), round(sketch.lost, 6)
    (torch.Size([2, 3]), 1.0, 2.0)
    """

    rank: Count
    slack: float
    lost: float
    rows: Annotated[Tensor, Form("sum r d")]

    def __post_init__(self) -> None:
        self._space = self.rows  # up to (2 · rank, d), of which the first rows are B

    @classmethod
    def empty(cls, d: int, *, rank: int, like: Tensor) -> FrequentDirections:
        """The sketch of no rows, on the device and in the dtype of `like`."""
        return cls(rank, 0.0, 0.0, like.new_zeros(0, d))

    def check(self) -> None:
        """The rank is one of d dimensions, and no more is lost in a direction than in all."""
        if not (1 <= self.rank <= self.rows.shape[1] and 0 <= self.slack <= self.lost):
            raise Malformed(
                f"a sketch cannot have rank {self.rank}, error {self.slack:g} and lost weight {self.lost:g}"
            )

    def add(self, rows: Tensor) -> None:
        """Takes in more rows (n, d) of A. Cost O(n ℓ d), memory for ℓ rows beside the sketch."""
        if len(rows) and len(self._space) < 2 * self.rank:
            missing = 2 * self.rank - len(self._space)
            self._space = torch.nn.functional.pad(self._space, (0, 0, 0, missing))
        while len(rows):
            if len(self.rows) >= len(self._space):
                self.shrink()
            used = len(self.rows)
            some = rows[: len(self._space) - used]
            self._space[used : used + len(some)] = some
            self.rows = self._space[: used + len(some)]
            rows = rows[len(some) :]

    def absorb(self, other: FrequentDirections) -> None:
        """Takes over what another sketch lost, whose rows were added."""
        self.slack += other.slack
        self.lost += other.lost

    def shrink(self) -> None:
        """Frees rows: those left are ℓ at most. Cost O(r² d)."""
        values, vectors = torch.linalg.eigh(self.rows @ self.rows.mH)  # ascending
        values = values.clamp(min=0)
        cut = values[-self.rank - 1] if len(values) > self.rank else values.new_zeros(())
        kept = values > cut
        left = values[kept] - cut
        scale = (left / values[kept]).sqrt().to(vectors)
        shrunk = (vectors[:, kept] * scale).mH @ self.rows
        self.slack += float(cut)
        self.lost += float(values.sum() - left.sum())
        self._space[: len(shrunk)] = shrunk
        self.rows = self._space[: len(shrunk)]
