"""How the weight of a state is spread over samples: exact sums, from which pairs of different samples are counted.

Sample i has Tᵢ vectors aᵢₜ = √w ψ. With Wᵢ = Σₜ ‖aᵢₜ‖² its weight and sᵢ = Σₜ aᵢₜ its sum, the sums below give Σ Wᵢ²,
of the state as it is or (with the last four) of the state less its mean μ:

    Σ (Wᵢ − 2 Re⟨μ, sᵢ⟩ + Tᵢ‖μ‖²)².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import torch
from torch import Tensor

from ketwork.records import Count, Form, Malformed


@dataclass
class SampleWeights:
    """Sums over samples that have vectors: their number, the largest Tᵢ, Σ Wᵢ², Σ Tᵢ², Σ WᵢTᵢ and Σ‖sᵢ‖².

    `weighted` and `counted` (d,) are Σ Wᵢsᵢ and Σ Tᵢsᵢ, None where no mean is to be subtracted. Vectors that are zero
    count in Tᵢ where they are vectors of the state, as of one that weighs vectors by their squared norms.
    """

    samples: Count = 0
    longest: Count = 0
    squares: float = 0.0
    pairs: float = 0.0
    products: float = 0.0
    lengths: float = 0.0
    weighted: Annotated[Tensor, Form("sum d")] | None = None
    counted: Annotated[Tensor, Form("sum d")] | None = None

    def check(self) -> None:
        """The sums are of one set of samples."""
        if (self.weighted is None) != (self.counted is None):
            raise Malformed("the weights of samples must have both sums of vectors, or neither")
        sums = (self.squares, self.pairs, self.products, self.lengths)
        if (
            not all(0 <= each < float("inf") for each in sums)
            or self.products**2 > 1.001 * self.squares * self.pairs
        ):
            raise Malformed(f"sums of squared weights and numbers of vectors cannot be {sums}")

    @classmethod
    def from_vectors(
        cls, vectors: Tensor, weights: Tensor, owners: Tensor, samples: int, center: bool
    ) -> Self:
        """The sums of a batch of vectors √w ψ (n, d) with w (n,) and the number of the sample (n,) that each is of.

        Cost: O(n), and O(n d) where a mean is to be subtracted. `owners` ascend.
        """
        counts = torch.bincount(owners, minlength=samples)
        some, longest = counts > 0, int(counts.max()) if samples else 0
        t = counts[some].double()
        each = _summed(weights, owners, counts)[some]
        sums = torch.stack([each.square().sum(), t.square().sum(), (each * t).sum()])
        squares, pairs, products = sums.tolist()
        if not center:
            return cls(len(t), longest, squares, pairs, products)
        rows = _summed(vectors, owners, counts)[some]
        weighted, counted = torch.stack([each, t]).to(rows) @ rows
        lengths = float(rows.abs().square().sum())
        return cls(len(t), longest, squares, pairs, products, lengths, weighted, counted)

    def __iadd__(self, other: Self) -> Self:
        self.samples += other.samples
        self.longest = max(self.longest, other.longest)
        self.squares += other.squares
        self.pairs += other.pairs
        self.products += other.products
        self.lengths += other.lengths
        for name in ("weighted", "counted"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, None if mine is None or theirs is None else mine + theirs)
        return self


def _summed(rows: Tensor, owners: Tensor, counts: Tensor) -> Tensor:
    """Σ of the rows (n, *) of each owner, in 64 bits a number: always in the same order, unlike additions by index."""
    wide = torch.complex128 if rows.is_complex() else torch.float64
    longest = int(counts.max()) if len(counts) else 0
    if longest * len(counts) == len(rows):
        return rows.reshape(len(counts), longest, *rows.shape[1:]).sum(dim=1, dtype=wide)
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[owners]
    padded = rows.new_zeros(len(counts), longest, *rows.shape[1:])
    padded[owners, place] = rows
    return padded.sum(dim=1, dtype=wide)
