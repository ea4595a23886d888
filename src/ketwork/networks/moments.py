"""Streaming second moments: Σ w |ψ⟩⟨ψ| over any number of kets, in memory set by their width alone.

While few kets have been seen they are kept themselves (n × d numbers say everything that d × d would); from
n = d/2 on their d × d moment is (see `gram` for its precision).
Moments form a monoid under `+`: batches, processes and studies add up in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._checked import Malformed, check_tensors
from ketwork.networks.gram import add_gram, mirrored

_ROWS_OF_A_BATCH = 2  # a batch's n kets stay as they are up to n = 2d, where its d × d moment is smaller


@dataclass
class Moment:
    """Σ w, Σ √w ψ and Σ w |ψ⟩⟨ψ| over n kets of d features.

    With w = ‖a‖² these are Σ ‖a‖², Σ a and Σ a a†, so that centring gives the covariance of the activations.
    The last is held as `rows` (√w ⟨ψ| each, n × d, a list of batches) or as `upper`: the d × d matrix in
    float64 of which only the upper block triangle is filled.
    """

    d: int
    n: int
    weight: float
    first: Tensor  # (d,) float64 or complex128
    rows: list[Tensor] | None
    upper: Tensor | None

    @classmethod
    def of(cls, kets: Tensor, weights: Tensor | None = None) -> Moment:
        """The moment of a batch of kets (n, d) with weights (n,), 1 each by default. Cost O(n d²)."""
        n, d = kets.shape
        if weights is None:
            total, scaled = float(n), kets
        else:
            total, scaled = float(weights.sum(dtype=torch.float64)), kets * weights.sqrt()[:, None]
        first = scaled.sum(dim=0, dtype=_wide(kets))
        rows = scaled.conj() if scaled.is_complex() else scaled
        moment = cls(d, n, total, first, [rows], None)
        if n > _ROWS_OF_A_BATCH * d:
            moment.condense()
        return moment

    @classmethod
    def empty(cls, d: int, like: Tensor) -> Moment:
        """The moment of no kets, which any other of the same width can be added to."""
        first = torch.zeros(d, dtype=_wide(like), device=like.device)
        return cls(d, 0, 0.0, first, [], None)

    def __iadd__(self, other: Moment) -> Moment:
        if other.d != self.d:
            raise ValueError(f"Moments of {self.d} and of {other.d} features cannot be added.")
        self.n += other.n
        self.weight += other.weight
        self.first = self.first + other.first
        if self.rows is not None and other.rows is not None and not _crowded(self.n, self.d):
            self.rows = self.rows + other.rows
            return self
        self.condense()
        assert self.upper is not None
        if other.rows is not None:
            for rows in other.rows:
                add_gram(self.upper, rows)
        elif other.upper is not None:
            self.upper += other.upper
        return self

    def condense(self) -> None:
        """Goes over from the rows to their d × d moment."""
        if self.rows is None:
            return
        dtype = self.first.dtype
        upper = torch.zeros(self.d, self.d, dtype=dtype, device=self.first.device)
        for rows in self.rows:
            add_gram(upper, rows)
        self.rows, self.upper = None, upper

    def factor(self) -> Tensor | None:
        """The rows √w ⟨ψ| in float64, (n, d), where they are kept; None where the moment is dense."""
        if self.rows is None:
            return None
        return torch.cat([self.first.new_zeros(0, self.d), *self.rows])

    def matrix(self) -> Tensor:
        """Σ w |ψ⟩⟨ψ|, (d, d), in float64 or complex128."""
        factor = self.factor()
        if factor is not None:
            return factor.mH @ factor
        assert self.upper is not None
        return mirrored(self.upper)

    def diagonal(self) -> Tensor:
        """Σ w |ψⱼ|² for each feature j, (d,), float64."""
        if self.rows is not None:
            factor = self.factor()
            assert factor is not None
            return factor.abs().square().sum(dim=0)
        assert self.upper is not None
        return self.upper.diagonal().real.clone()

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` needs, for a file."""
        if self.rows is not None:
            return {"first": self.first, "rows": torch.cat(self.rows)} if self.rows else {"first": self.first}
        assert self.upper is not None
        i, j = torch.triu_indices(self.d, self.d)
        return {"first": self.first, "upper": self.upper[i, j]}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], *, d: int, n: int, weight: float) -> Moment:
        """The moment that `tensors` described."""
        sizes = {"d": d, "n": n, "half": d * (d + 1) // 2}
        check_tensors(tensors, sizes, first="sum d", rows="ket n d?", upper="sum half?")
        first = tensors["first"]
        given = "upper" if "upper" in tensors else "rows"
        if (given not in tensors and n > 0) or tensors.get(given, first).is_complex() != first.is_complex():
            raise Malformed(
                f"a moment of {n} kets must hold their rows or their upper triangle, of its own kind"
            )
        if "upper" not in tensors:
            return cls(d, n, weight, first, [tensors["rows"]] if "rows" in tensors else [], None)
        upper = torch.zeros(d, d, dtype=first.dtype)
        i, j = torch.triu_indices(d, d)
        upper[i, j] = tensors["upper"]
        return cls(d, n, weight, first, None, upper)


def _crowded(n: int, d: int) -> bool:
    return n > d // 2


def _wide(kets: Tensor) -> torch.dtype:
    return torch.complex128 if kets.is_complex() else torch.float64
