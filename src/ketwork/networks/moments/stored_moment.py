"""`StoredMoment`: a second moment as a file has it, and what must be true of one that is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ketwork.networks.moments.frequent_directions import FrequentDirections
from ketwork.networks.moments.leading_states import LeadingStates
from ketwork.networks.moments.range_moment import RangeMoment
from ketwork.records import Count, Form, Malformed


@dataclass(frozen=True)
class StoredMoment:
    """A moment as a file has it: of `rows`, `upper`, `ranged`, `sketch` and `leading` the one that it is held as.

    Sums over rows go batch by batch, so the rows of each batch stay together (`lengths`): the same batches later give
    the same digits. `upper` is the packed upper triangle. With `leading` a sketch has no rows, but its error.
    """

    d: Count
    n: Count
    weight: float
    first: Annotated[Tensor, Form("sum d")]
    rows: Annotated[Tensor, Form("ket n d")] | None = None
    lengths: Annotated[Tensor, Form("int b")] | None = None
    upper: Annotated[Tensor, Form("sum half")] | None = None
    limit: Count | None = None
    sketch: FrequentDirections | None = None
    populations: Annotated[Tensor, Form("real d")] | None = None
    leading: LeadingStates | None = None
    ranged: RangeMoment | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The length of the packed triangle."""
        return {"half": self.d * (self.d + 1) // 2}

    def check(self) -> None:
        """It is held in one form, of the kind of `first`."""
        sketch = None if self.sketch is None else self.sketch.rows
        ranged = None if self.ranged is None else self.ranged.states
        held = [part for part in (self.rows, self.upper, sketch, ranged) if part is not None]
        if self.leading is not None:
            self._check_leading(held, self.leading)
            held = [self.leading.states]
        if len(held) > 1 or (self.n > 0 and not held):
            raise Malformed(
                f"a moment of {self.n} vectors must hold their rows, their upper triangle or a sketch"
            )
        if any(part.is_complex() != self.first.is_complex() for part in held):
            raise Malformed("the parts of a moment must all be real, or all complex")
        if self.rows is not None:
            lengths = [] if self.lengths is None else self.lengths.tolist()
            if min(lengths, default=0) < 0 or sum(lengths) != self.n:
                raise Malformed(f"the batches of {self.n} rows cannot have lengths {lengths[:8]}")
        if self.populations is None and not held == [] and (self.rows is None and self.upper is None):
            raise Malformed("a sketch and leading states must have their populations beside them")
        for part in (sketch, ranged):
            if part is not None and part.shape[1] != self.d:
                raise Malformed(f"a sketch or a range of {self.d} features must have as many columns")
        if self.n > 0:
            self._check_diagonal()

    def _check_leading(self, held: list[Tensor], leading: LeadingStates) -> None:
        """Nothing else is held, and the states are of these features."""
        if any(part.numel() for part in held) or leading.states.shape[1] != self.d:
            raise Malformed(f"leading states of {self.d} features must have as many columns, and stand alone")

    def _check_diagonal(self) -> None:
        """Σ w |ψⱼ|² ≥ |Σ √w ψⱼ|²/n for each feature, and not all are 0."""
        if self.rows is not None:
            diagonal = self.rows.to(self.first.dtype).abs().square().sum(0)
        elif self.upper is not None:
            row = torch.arange(self.d)
            diagonal = self.upper[row * self.d - row * (row - 1) // 2].real
        else:
            assert self.populations is not None
            diagonal = self.populations
        least = 0.9 * self.first.abs().square() / self.n  # rounding aside
        if not bool((diagonal >= least - 1e-30).all()) or not 0 < float(diagonal.sum()) < math.inf:
            raise Malformed(
                f"the second moments of {self.n} vectors must add up to a number above 0, and none be less than their "
                "mean's square"
            )
