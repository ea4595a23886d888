"""From a layer's statistics to its numbers, each with a standard error.

Standard errors are those of the sampling of data: the influence function of each number (its first-order
change when one more ket enters the mean) is evaluated on the reservoir's kets and summed over each sample,
since positions of one sample are not independent; the variance of these sums over samples gives the error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.measures.bounds import Interval, Known, around
from ketwork.networks.measures.quantities import QUANTITIES
from ketwork.networks.moments.accumulator import LayerStatistics
from ketwork.quantum import Density, Estimate, shannon_entropy
from ketwork.records.checked import Malformed

_NOTHING = 1e-12


PACKED = {str: [(float, None)]}
"""What `pack` gives."""


def pack(estimates: dict[str, Estimate]) -> dict[str, list[float | None]]:
    """Estimates for a JSON file, NaN as null: value, standard error and, where there are any, the bounds."""
    return {
        name: [
            None if math.isnan(x) else x for x in (estimate.value, estimate.stderr, *(estimate.bounds or ()))
        ]
        for name, estimate in estimates.items()
    }


def unpack(packed: dict[str, list[float | None]]) -> dict[str, Estimate]:
    """What `pack` packed."""
    if any(len(told) not in (2, 4) or (told[1] or 0) < 0 for told in packed.values()):
        raise Malformed("each estimate must be a value and its standard error, which is not negative")
    found = {}
    for name, told in packed.items():
        value, stderr, *bounds = (math.nan if x is None else float(x) for x in told)
        if bounds and not bounds[0] <= bounds[1]:
            raise Malformed(f"the bounds of {name!r} must be in order, but are {bounds}")
        found[name] = Estimate(value, stderr, (bounds[0], bounds[1]) if bounds else None)
    return found


def density(stats: LayerStatistics, center: bool = False) -> Density | None:
    """The layer's state ρ = Σ w|ψ⟩⟨ψ| / Σ w; with `center`, the covariance of the vectors √w ψ over its trace.

    float64 (complex128), factored while fewer than d/2 kets have been seen. Of a sketched moment, the state of
    what the sketch holds; `known` says how far the layer's may be from it. None where there is no state: every
    activation is a zero vector, or centring leaves nothing since all kets are equal.
    """
    moment = stats.moment
    if moment.weight == 0:
        return None
    factor = moment.factor()
    mean = moment.first / moment.n
    if factor is not None:
        if center and moment.sketch is not None:
            factor = _less(factor, mean.conj() * math.sqrt(moment.n))
        elif center:
            factor = factor - mean.conj()
        length = torch.linalg.matrix_norm(factor)
        return Density.from_factor(factor / length) if length**2 > _NOTHING * moment.weight else None
    matrix = moment.matrix()
    if center:
        matrix = matrix - moment.n * torch.outer(mean, mean.conj())
    matrix = matrix / moment.weight
    trace = matrix.diagonal().real.sum()
    return Density(matrix / trace, False, (moment.d,)) if trace > _NOTHING else None


def slack(stats: LayerStatistics, center: bool = False) -> float:
    """The most by which what a sketch keeps of ρ falls short of ρ in any direction; 0 where the moment is exact."""
    moment = stats.moment
    if moment.sketch is None:
        return 0.0
    trace = float(_populations(stats, center).sum())
    return moment.slack / trace if trace > 0 else 0.0


def known(stats: LayerStatistics, values: Tensor, center: bool = False) -> Known | None:
    """What is certain of ρ's eigenvalues where its moment is a sketch, whose state has `values`; else None."""
    moment = stats.moment
    if moment.sketch is None:
        return None
    trace = float(_populations(stats, center).sum())
    whole = float(moment.sketch.rows.abs().square().sum())
    if center:  # what `density` kept of the sketch less the mean
        whole = float(
            _less(moment.sketch.rows, moment.first.conj() / math.sqrt(moment.n)).abs().square().sum()
        )
    rank = min(moment.n - center, moment.d)
    return Known(values.clamp(min=0) * (whole / trace), slack(stats, center), rank)


def _populations(stats: LayerStatistics, center: bool) -> Tensor:
    """The diagonal of the layer's moment, exact in every form, (d,)."""
    moment = stats.moment
    found = moment.diagonal()
    return found - moment.first.abs().square() / moment.n if center else found


def _less(rows: Tensor, row: Tensor) -> Tensor:
    """A factor of the positive part of R†R − r†r, for rows R (n, d) and a row r (d,). Cost O(n² d)."""
    both = torch.cat([rows, row[None]])
    values, vectors = torch.linalg.eigh(both @ both.mH)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = vectors[:, kept] * values[kept].sqrt().to(vectors)  # both = root Q with orthonormal rows Q
    signs = torch.ones_like(values)
    signs[-1] = -1
    shares, turn = torch.linalg.eigh((root.mH * signs.to(root)) @ root)
    positive = shares > 0
    inverse = vectors[:, kept] / values[kept].sqrt().to(vectors)
    return (turn[:, positive] * shares[positive].sqrt().to(turn)).mH @ (inverse.mH @ both)


def estimates(
    stats: LayerStatistics, rho: Density | None, normalize: str, center: bool
) -> dict[str, Estimate]:
    """Every quantity of `quantities.QUANTITIES` for one layer whose state is `rho`. Cost O(d³) at most."""
    rest = {
        "dead": Estimate(float((stats.moment.diagonal() == 0).double().mean())),
        "zero": Estimate(stats.zeros / max(stats.zeros + stats.kets, 1)),
        "norm": _norm(stats),
        **_entanglement(stats),
    }
    if rho is None:
        return {q.name: rest.get(q.name, Estimate(math.nan)) for q in QUANTITIES}
    values, states = rho.eigenstates(min(rho.data.shape[-2:]))
    certain = known(stats, values, center)
    r = len(values)
    values = values.clamp(min=0)
    spectrum = values if certain is None else certain.middle
    elsewhere = float(spectrum[r]) if len(spectrum) > r else 0.0  # of each state that a sketch does not hold
    sample = _Sample.of(stats, normalize, center)
    weights = sample.weights_on(states.amplitudes)  # (R, P, r)
    outside = (1 - weights.sum(dim=-1)).clamp(min=0) if elsewhere else torch.zeros_like(weights[..., 0])
    inside = spectrum[:r] if len(spectrum) >= r else torch.nn.functional.pad(spectrum, (0, r - len(spectrum)))
    logs = torch.where(inside > 0, inside, 1.0).log2()
    populations = _populations(stats, center).clamp(min=0)
    populations = populations / populations.sum()
    log_populations = torch.where(populations > 0, populations, 1.0).log2()

    entropy = float(shannon_entropy(spectrum / spectrum.sum()))
    surprisal = -(weights @ logs) - outside * (math.log2(elsewhere) if elsewhere else 0.0)
    entropy_error = sample.stderr(surprisal, entropy)
    classical = float(shannon_entropy(populations))
    in_basis = sample.kets.abs().square().double()
    coherence = -(in_basis @ log_populations) - surprisal
    purity = float(spectrum.square().sum())
    purity_error = 2 * sample.stderr(weights @ inside + outside * elsewhere, purity)
    top = float(spectrum[0])

    def ratio(of: float) -> float:
        unbiased = sample.unbiased_purity(of)
        if math.isnan(unbiased):
            return math.nan
        return min(max(1 / unbiased, 1.0), float(stats.d)) if unbiased > 0 else float(stats.d)

    between: dict[str, Interval] = {}
    if certain is not None:
        low, high = certain.entropy()
        between = {
            "entropy": (low, high),
            "effective_rank": (2**low, 2**high),
            "participation_ratio": (ratio(certain.purity()[1]), ratio(certain.purity()[0])),
            "coherence": (max(classical - high, 0.0), max(classical - low, 0.0)),
            "top_weight": certain.top(),
        }
    found = {
        "entropy": Estimate(entropy, entropy_error),
        "effective_rank": Estimate(2**entropy, 2**entropy * math.log(2) * entropy_error),
        "participation_ratio": Estimate(ratio(purity), ratio(purity) ** 2 * purity_error),
        "coherence": Estimate(classical - entropy, sample.stderr(coherence, classical - entropy)),
        "ket_coherence": _ket_coherence(stats),
        "top_weight": Estimate(top, sample.stderr(weights[..., 0], top)),
        **rest,
    }
    for name, ends in between.items():
        value = found[name].value
        if not any(map(math.isnan, (value, *ends))):
            found[name] = Estimate(value, found[name].stderr, around(value, *ends))
    return {q.name: found[q.name] for q in QUANTITIES}


@dataclass(frozen=True)
class _Sample:
    """The reservoir's kets as the state sees them: unit kets (R, P, d) with weights, centred if asked.

    `counts` (R,) are the positions of each sample of which `valid` (R, P) marks the kept ones; `total` is
    the weight of all kets of the pass over `samples` samples.
    """

    kets: Tensor
    weights: Tensor
    valid: Tensor
    counts: Tensor
    total: float
    samples: int

    @classmethod
    def of(cls, stats: LayerStatistics, normalize: str, center: bool) -> _Sample:
        reservoir, moment = stats.reservoir, stats.moment
        valid = reservoir.valid()
        weights = (reservoir.norms.double().square() if normalize == "ensemble" else valid.double()) * valid
        kets = reservoir.kets
        total = moment.weight if normalize == "ensemble" else float(moment.n)
        if center:
            mean = moment.first / moment.n
            kets = kets * weights.sqrt()[..., None].to(kets.real.dtype) - mean.to(kets)
            lengths = torch.linalg.vector_norm(kets, dim=-1)
            kets = kets / torch.where(lengths > 0, lengths, 1.0)[..., None]
            weights = torch.where(valid, lengths.double().square(), 0.0)
            total = total - moment.n * float(mean.abs().square().sum())
        return cls(kets, weights, valid, reservoir.counts, total, stats.samples)

    def weights_on(self, states: Tensor) -> Tensor:
        """|⟨v|ψ⟩|² of each kept ket on each of the states (k, d), (R, P, k)."""
        return (self.kets @ states.to(self.kets).mH).abs().square().double()

    def stderr(self, values: Tensor, mean: float) -> float:
        """Standard error of the weighted mean over all kets of a quantity known on the kept ones, (R, P)."""
        if self.samples < 2:
            return math.nan
        shown = self.valid.sum(dim=1).clamp(min=1).double()
        influence = torch.where(self.valid, self.weights * (values - mean), 0.0)
        each = influence.sum(dim=1) / shown
        spread = torch.where(self.valid, influence - each[:, None], 0.0).square().sum(dim=1)
        spread = spread / (shown - 1).clamp(min=1)
        counts = self.counts.double()
        # A sum over all positions, estimated from the shown ones, varies by this much from the choice alone.
        chance = counts**2 * (1 - shown / counts.clamp(min=1)).clamp(min=0) * spread / shown
        variance = float(((counts * each).square() - chance).mean())
        if bool((counts > shown).any()):
            alone = float((counts * influence.square().sum(dim=1) / shown).mean())
            variance = max(variance, alone)  # never below that of independent positions
        variance *= self.samples**2 / (self.samples - 1)
        return math.sqrt(max(variance, 0.0)) / self.total

    def unbiased_purity(self, purity: float) -> float:
        """Tr ρ² from pairs of different samples only (of different kets where each sample has one).

        (‖M‖² − Σᵢ‖Aᵢ‖²) / (W² − ΣWᵢ²), where Aᵢ is the sum of wᵗ|ψᵗ⟩⟨ψᵗ| over sample i and Wᵢ its trace;
        for N unit kets (N Tr ρ̂² − 1)/(N − 1). The own terms are exact where the reservoir holds all
        samples with all their kets, or one ket a sample of weight 1; else estimated without bias.
        """
        if self.samples < 2:
            return math.nan
        shown = self.valid.sum(dim=1).double()
        counts = self.counts.double()
        scaled = self.kets * self.weights.sqrt()[..., None].to(self.kets.real.dtype)
        wide = scaled.shape[1] < scaled.shape[2]
        gram = scaled @ scaled.mH if wide else scaled.mH @ scaled  # either has the same ‖·‖²
        same = self.weights.square().sum(dim=1)
        own = _whole(same, gram.abs().double().square().sum(dim=(1, 2)), shown, counts)
        trace = _whole(same, self.weights.sum(dim=1).square(), shown, counts)
        left = self.total**2 - self.samples * float(trace.mean())
        if left <= 0:
            return math.nan
        return (self.total**2 * purity - self.samples * float(own.mean())) / left


def _whole(same: Tensor, pairs: Tensor, shown: Tensor, counts: Tensor) -> Tensor:
    """Σ over all pairs of a sample's positions of a quantity whose sums over the shown ones are known, (R,).

    `same` is the part of `pairs` where both positions are the same one.
    """
    other = counts * (counts - 1) * (pairs - same) / (shown * (shown - 1)).clamp(min=1)
    return counts * same / shown.clamp(min=1) + other


def _ket_coherence(stats: LayerStatistics) -> Estimate:
    """Mean over kets, from the reservoir alone."""
    p = stats.reservoir.kets.abs().square().double()
    return _reservoir_mean(stats, -torch.special.xlogy(p, p).sum(dim=-1) / math.log(2))


def _norm(stats: LayerStatistics) -> Estimate:
    if stats.kets == 0:
        return Estimate(math.nan)
    mean = stats.norms / stats.kets
    sample = _Sample.of(stats, "state", False)
    return Estimate(mean, sample.stderr(stats.reservoir.norms.double(), mean))


def _reservoir_mean(stats: LayerStatistics, values: Tensor) -> Estimate:
    sample = _Sample.of(stats, "state", False)
    shown = sample.valid.sum(dim=1).clamp(min=1).double()
    counts = sample.counts.double()
    each = torch.where(sample.valid, values, 0.0).sum(dim=1) / shown
    mean = float((counts * each).sum() / counts.sum())
    # Only the kept samples were seen: their own spread is the error.
    r = len(counts)
    if r < 2:
        return Estimate(mean)
    spread = float((counts * (each - mean)).square().sum()) * r / (r - 1)
    return Estimate(mean, math.sqrt(spread) / float(counts.sum()))


def _entanglement(stats: LayerStatistics) -> dict[str, Estimate]:
    grams, sides = stats.reservoir.grams, stats.reservoir.sides
    if grams is None or sides is None:
        return {"entanglement": Estimate(math.nan), "rank_collapse": Estimate(math.nan)}
    some = sides > 0
    weights = torch.linalg.eigvalsh(_wide(grams[some])).clamp(min=0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    entropies = -torch.special.xlogy(weights, weights).sum(dim=-1) / math.log(2)
    side = sides[some].double()
    several = side > 1
    return {
        "entanglement": _mean(entropies),
        "rank_collapse": _mean(1 - entropies[several] / side[several].log2()),
    }


def _mean(values: Tensor) -> Estimate:
    n = len(values)
    if n == 0:
        return Estimate(math.nan)
    error = float(values.std()) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float(values.mean()), error)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
