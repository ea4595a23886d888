"""`Sample`: the kept vectors of a layer, each standing for a share of all samples of the pass.

Where kets weigh by their squared norm, few samples may carry most of the weight, and a draw of 128 would miss them. So
the heaviest samples are kept beside the draw. Those heavier than the lightest of them stand for themselves; the drawn
ones that are not stand for all others. A sum over samples of what grows as the square of their weight is scaled by the
squares of the weights, whose sum over all samples is known (a ratio estimate; Cochran 1977, Sampling Techniques, §6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.moments import LayerAccumulator

_TOGETHER = 1 << 18


@dataclass(frozen=True)
class Sample:
    """Kept vectors as a state sees them: unit vectors (R, P, d) with weights, less the mean if centred.

    `counts` (R,) are the positions of each sample of which `valid` (R, P) marks the kept ones; `total` is
    the weight of all vectors of the pass over `samples` samples. `shares` (R,) say how many samples each stands for
    in sums of what is quadratic in the weight; the first `heaviest` for themselves.
    `order` (R,) is that of their keys, which does not depend on how the samples were gathered.
    """

    kets: Tensor
    weights: Tensor
    valid: Tensor
    counts: Tensor
    total: float
    samples: int
    shares: Tensor
    order: Tensor
    heaviest: int = 0

    @classmethod
    def from_accumulator(
        cls, accumulator: LayerAccumulator, normalize: str, mean: Tensor | None = None, zeros: int = 0
    ) -> Sample:
        """The vectors of the layer's reservoir and, where kets weigh by their squared norm, the heaviest.

        Less a mean if there is one, to which so many zero vectors belong. Of layers with positions it is not known how
        many zero vectors each sample has: they are skipped here.
        """
        moment = accumulator.moment
        kets, norms, counts, valid, shares, order, heaviest = _kept(accumulator, normalize)
        weights = (norms.double().square() if normalize == "ensemble" else valid.double()) * valid
        total = moment.weight if normalize == "ensemble" else float(moment.n)
        if mean is not None:
            if zeros and not accumulator.info.positions:
                counts = counts.clamp(min=1)
                valid = valid | (torch.arange(valid.shape[1], device=valid.device) == 0)
            kets = kets * weights.sqrt()[..., None].to(kets.real.dtype) - mean.to(kets)
            wide = torch.complex128 if kets.is_complex() else torch.float64
            lengths = torch.linalg.vector_norm(kets, dim=-1, dtype=wide)
            kets = kets / torch.where(lengths > 0, lengths, 1.0)[..., None].to(kets.real.dtype)
            weights = torch.where(valid, lengths.square(), 0.0)
            total = total - (moment.n + zeros) * float(mean.abs().square().sum())
        return cls(kets, weights, valid, counts, total, accumulator.samples, shares, order, heaviest)

    @property
    def kept(self) -> Tensor:
        """How many vectors of each sample are kept, (R,), at least 1."""
        return self.valid.sum(dim=1).clamp(min=1).double()

    @property
    def complete(self) -> bool:
        """Whether all vectors of each kept sample are there."""
        return not bool((self.counts > self.kept).any())

    def amplitudes_on(self, states: Tensor) -> Tensor:
        """⟨v|ψ⟩ of each kept vector on each of the states (k, d), (R, P, k)."""
        return self.kets @ states.to(self.kets).mH

    def stderr(self, values: Tensor, mean: float) -> float:
        """Standard error of the weighted mean over all vectors of a number known on the kept ones, (R, P)."""
        return math.sqrt(self.variance(values, mean))

    def variance(self, values: Tensor, mean: float) -> float:
        """The square of `stderr`; NaN with fewer than two samples."""
        if self.samples < 2:
            return math.nan
        kept = self.kept
        influence = torch.where(self.valid, self.weights * (values - mean), 0.0)
        each = influence.sum(dim=1) / kept
        spread = torch.where(self.valid, influence - each[:, None], 0.0).square().sum(dim=1)
        spread = spread / (kept - 1).clamp(min=1)
        counts = self.counts.double()
        # A sum over all positions, estimated from the kept ones, varies by this much from the choice alone.
        chance = counts**2 * (1 - kept / counts.clamp(min=1)).clamp(min=0) * spread / kept
        variance = float(self.shares @ ((counts * each).square() - chance))
        if bool((counts > kept).any()):
            alone = float(self.shares @ (counts * influence.square().sum(dim=1) / kept))
            variance = max(variance, alone)  # never below that of independent positions
        variance *= self.samples / (self.samples - 1)
        return max(variance, 0.0) / self.total**2

    def some(self, most: int) -> tuple[Tensor, Tensor]:
        """At most so many of the kept samples (m,), and the shares that they have then."""
        r, heavy = len(self.shares), min(self.heaviest, most // 2)
        rest = min(r - self.heaviest, most - heavy)
        which = torch.cat([self.order[:heavy], self.order[self.heaviest : self.heaviest + rest]])
        shares = self.shares[which].clone()
        shares[:heavy] *= self.heaviest / max(heavy, 1)
        shares[heavy:] *= (r - self.heaviest) / max(rest, 1)
        return which, shares

    def sums(self, values: Tensor) -> Tensor:
        """Σ over all of a sample's vectors of weight times a number of each, (R, P), over the pass's weight, (R,)."""
        scale = self.counts.double() / self.kept / self.total
        return torch.where(self.valid, self.weights * values, 0.0).sum(dim=1) * scale

    def mean(self, values: Tensor) -> tuple[float, float]:
        """The mean over the kept samples' vectors of a number of each, (R, P), and its standard error.

        Only the kept samples were seen: their own spread is the error.
        """
        counts = self.counts.double()
        each = torch.where(self.valid, values, 0.0).sum(dim=1) / self.kept
        mean = float((counts * each).sum() / counts.sum())
        r = len(counts)
        if r < 2:
            return mean, math.nan
        spread = float((counts * (each - mean)).square().sum()) * r / (r - 1)
        return mean, math.sqrt(spread) / float(counts.sum())

    def own(self) -> tuple[Tensor, Tensor]:
        """‖Aᵢ‖² and Wᵢ² of each kept sample, (R,), with Aᵢ the sum of w|ψ⟩⟨ψ| over its vectors and Wᵢ its trace.

        Exact where all vectors of a sample are kept; else estimated without bias from pairs of the kept ones.
        """
        scaled = self.kets * self.weights.sqrt()[..., None].to(self.kets.real.dtype)
        wide = scaled.shape[1] < scaled.shape[2]
        gram = scaled @ scaled.mH if wide else scaled.mH @ scaled  # either has the same ‖·‖²
        same = self.weights.square().sum(dim=1)
        pairs = gram.abs().double().square().sum(dim=(1, 2))
        kept, counts = self.valid.sum(dim=1).double(), self.counts.double()
        return all_pairs(same, pairs, kept, counts), all_pairs(
            same, self.weights.sum(dim=1).square(), kept, counts
        )


def at_once(kets: Tensor) -> int:
    """Of how many samples the vectors (R, P, d) are best worked on together: what fits into a processor's cache."""
    return max(1, _TOGETHER // max(1, kets.shape[1] * kets.shape[2]))


def all_pairs(same: Tensor, pairs: Tensor, kept: Tensor, counts: Tensor) -> Tensor:
    """Σ over all pairs of a sample's positions of a number whose sums over the kept ones are known, (R,).

    `same` is the part of `pairs` where both positions are the same one.
    """
    other = counts * (counts - 1) * (pairs - same) / (kept * (kept - 1)).clamp(min=1)
    return counts * same / kept.clamp(min=1) + other


def _kept(
    accumulator: LayerAccumulator, normalize: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]:
    """Kets, norms, counts, validity, shares and order of the kept samples, and how many of the first are heaviest."""
    drawn, heaviest = accumulator.reservoir, accumulator.heaviest
    n = accumulator.samples
    alike = normalize != "ensemble"
    if alike or n <= len(drawn.keys) or heaviest is None or heaviest.weights is None or drawn.weights is None:
        known = accumulator.sample_weights.kets if alike and accumulator.sample_weights is not None else None
        shares = _shares(n, drawn.counts.double(), known, drawn.keys)
        return drawn.kets, drawn.norms, drawn.counts, drawn.valid(), shares, drawn.keys.argsort(), 0
    lightest = heaviest.weights.min()
    first, rest = heaviest.weights > lightest, drawn.weights <= lightest
    every = None
    if accumulator.sample_weights is not None:
        every = accumulator.sample_weights.squares - float(heaviest.weights[first].square().sum())
    others = n - int(first.sum())
    shares = torch.cat(
        [
            torch.ones_like(heaviest.weights[first]),
            _shares(others, drawn.weights[rest], every, drawn.keys[rest]),
        ]
    )
    width = max(heaviest.kets.shape[1], drawn.kets.shape[1])
    parts = [(heaviest, first), (drawn, rest)]
    kets = torch.cat([_wide(part.kets[which], width) for part, which in parts])
    norms = torch.cat([_wide(part.norms[which], width) for part, which in parts])
    counts = torch.cat([part.counts[which] for part, which in parts])
    valid = torch.cat([_wide(part.valid()[which], width) for part, which in parts])
    heavy = int(first.sum())
    order = torch.cat([heaviest.keys[first].argsort(), heavy + drawn.keys[rest].argsort()])
    return kets, norms, counts, valid, shares, order, heavy


def _shares(n: int, weights: Tensor, every: float | None, like: Tensor) -> Tensor:
    """For how many of n samples each drawn one stands in sums of squares; `every` is that of the weights, if known."""
    r = max(len(like), 1)
    scale = n / r
    if r < n and every is not None:
        kept = float(weights.square().sum())
        scale = every / kept if kept > 0 and every > 0 else scale
    return torch.full((len(like),), scale, dtype=torch.float64, device=like.device)


def _wide(tensor: Tensor, width: int) -> Tensor:
    missing = tensor.new_zeros(tensor.shape[0], width - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], dim=1)
