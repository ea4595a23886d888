"""How the weight of a state is spread over samples: exact sums, from which pairs of different samples are counted.

Sample i has Tᵢ vectors aᵢₜ = √w ψ. With Wᵢ = Σₜ ‖aᵢₜ‖² its weight and sᵢ = Σₜ aᵢₜ its sum, the sums below give Σ Wᵢ²,
of the state as it is or (with the last four) of the state less its mean μ:

    Σ (Wᵢ − 2 Re⟨μ, sᵢ⟩ + Tᵢ‖μ‖²)².

Σ Wᵢ² also gives Kish's effective number of samples, (Σ W)²/Σ W², and Σ nᵢ², Σ nᵢℓᵢ and Σ ℓᵢ², with ℓᵢ the length Σₜ ‖a‖
of its nᵢ nonzero activations, the exact standard error of the mean length.
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

    `kets` is Σ nᵢ², `norm_products` Σ nᵢℓᵢ and `norms` Σ ℓᵢ², of nonzero activations.
    `weighted` and `counted` (d,) are Σ Wᵢsᵢ and Σ Tᵢsᵢ, None where no mean is to be subtracted. Vectors that are zero
    count in Tᵢ where they are vectors of the state, as of one that weighs vectors by their squared norms.
    """

    samples: Count = 0
    longest: Count = 0
    squares: float = 0.0
    pairs: float = 0.0
    products: float = 0.0
    lengths: float = 0.0
    kets: float = 0.0
    norm_products: float = 0.0
    norms: float = 0.0
    weighted: Annotated[Tensor, Form("sum d")] | None = None
    counted: Annotated[Tensor, Form("sum d")] | None = None

    def check(self) -> None:
        """The sums are of one set of samples."""
        if (self.weighted is None) != (self.counted is None):
            raise Malformed("the weights of samples must have both sums of vectors, or neither")
        sums = (
            self.squares,
            self.pairs,
            self.products,
            self.lengths,
            self.kets,
            self.norm_products,
            self.norms,
        )
        if (
            not all(0 <= each < float("inf") for each in sums)
            or self.products**2 > 1.001 * self.squares * self.pairs
            or self.norm_products**2 > 1.001 * self.kets * self.norms
        ):
            raise Malformed(f"sums of squared weights and numbers of vectors cannot be {sums}")

    @classmethod
    def from_vectors(
        cls, vectors: Tensor, weights: Tensor, owners: Tensor, norms: PerSample, center: bool
    ) -> Self:
        """The sums of a batch of vectors √w ψ (n, d) with w (n,) and the number of the sample (n,) that each is of.

        Cost: O(n), and O(n d) where a mean is to be subtracted. `owners` ascend.
        """
        counts = torch.bincount(owners, minlength=len(norms.counts))
        some, longest = counts > 0, int(counts.max()) if len(counts) else 0
        t, each = counts[some].double(), summed(weights, owners, counts)[some]
        n, lengths = norms.counts.double(), norms.lengths
        products = (each * each, t * t, each * t, n * n, n * lengths, lengths * lengths)
        sums = torch.stack([product.sum() for product in products]).tolist()
        squares, pairs, mixed, kets, norm_products, squared = sums
        result = cls(len(t), longest, squares, pairs, mixed, 0.0, kets, norm_products, squared)
        if center:
            rows = summed(vectors, owners, counts)[some]
            result.weighted, result.counted = torch.stack([each, t]).to(rows) @ rows
            result.lengths = float(rows.abs().square().sum())
        return result

    def __iadd__(self, other: Self) -> Self:
        self.longest = max(self.longest, other.longest)
        for name in ("samples", "squares", "pairs", "products", "lengths", "kets", "norm_products", "norms"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("weighted", "counted"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, None if mine is None or theirs is None else mine + theirs)
        return self


@dataclass(frozen=True)
class PerSample:
    """Of each sample (n,): how many nonzero activations it has, their lengths Σ‖a‖ and the squares Σ‖a‖²."""

    counts: Tensor
    lengths: Tensor
    squares: Tensor

    @classmethod
    def from_norms(cls, norms: Tensor, owners: Tensor, samples: int) -> Self:
        """Of the norms (n,) of nonzero activations with the number of the sample (n,) that each is of, ascending."""
        counts = torch.bincount(owners, minlength=samples)
        sums = summed(torch.stack([norms.double(), norms.double().square()], dim=1), owners, counts)
        return cls(counts, *sums.unbind(dim=1))


def summed(rows: Tensor, owners: Tensor, counts: Tensor) -> Tensor:
    """Σ of the rows (n, *) of each owner, in 64 bits a number: always in the same order, unlike additions by index."""
    wide = torch.complex128 if rows.is_complex() else torch.float64
    longest = int(counts.max()) if len(counts) else 0
    if longest * len(counts) == len(rows):
        return rows.reshape(len(counts), longest, *rows.shape[1:]).sum(dim=1, dtype=wide)
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[owners]
    padded = rows.new_zeros(len(counts), longest, *rows.shape[1:])
    padded[owners, place] = rows
    return padded.sum(dim=1, dtype=wide)
