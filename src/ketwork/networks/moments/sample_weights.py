"""How the weight of a state is spread over samples: exact sums, from which pairs of different samples are counted.

Sample i has Tᵢ vectors aᵢₜ = √w ψ. With Wᵢ = Σₜ ‖aᵢₜ‖² its weight and sᵢ = Σₜ aᵢₜ its sum, the sums below give Σ Wᵢ²,
of the state as it is or (with the last four) of the state less its mean μ:

    Σ (Wᵢ − 2 Re⟨μ, sᵢ⟩ + Tᵢ‖μ‖²)².

Σ Wᵢ² also gives Kish's effective number of samples N_eff = (Σ W)²/Σ W² (`LayerAccumulator.effective_samples`), and
Σ nᵢ², Σ nᵢℓᵢ and Σ ℓᵢ², with ℓᵢ the length Σₜ ‖a‖ of its nᵢ nonzero activations, the exact standard error of the mean
length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import torch
from torch import Tensor

from ketwork.networks.moments.positions import Positions
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
    def from_batch(
        cls, norms: Tensor, positions: Positions, by_square: bool, centred: Tensor | None = None
    ) -> Self:
        """The sums of a batch, from the norms (N, T) of its activations, 0 where there is none.

        Vectors weigh 1 each, or `by_square` ‖a‖². The vectors √w ψ (n, d) are given where a mean is to be subtracted.
        The numbers are tensors still (`read_numbers`).
        Cost: O(n), and then O(n d).
        """
        norms = norms.double()
        n, lengths = (norms > 0).sum(dim=1).double(), norms.sum(dim=1)
        each = norms.square().sum(dim=1) if by_square else n
        t = positions.counts.double() if by_square else n
        products = (t > 0, each * each, t * t, each * t, n * n, n * lengths, lengths * lengths)
        samples, *rest = (product.sum(dtype=torch.float64) for product in products)
        squares, pairs, mixed, kets, norm_products, squared = rest
        longest = t.max() if len(t) else t.sum()
        result = cls(samples.long(), longest.long(), squares, pairs, mixed, 0.0, kets, norm_products, squared)  # type: ignore[arg-type]
        if centred is not None:
            rows = positions.sums(centred)
            result.weighted, result.counted = torch.stack([each, t]).to(rows) @ rows
            result.lengths = rows.abs().square().sum()  # type: ignore[assignment]
        return result

    def __iadd__(self, other: Self) -> Self:
        self.longest = max(self.longest, other.longest)
        for name in ("samples", "squares", "pairs", "products", "lengths", "kets", "norm_products", "norms"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("weighted", "counted"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, None if mine is None or theirs is None else mine + theirs)
        return self
