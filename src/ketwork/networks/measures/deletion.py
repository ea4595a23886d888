"""What becomes of a layer's state without one of its samples, exactly, with no decomposition of each.

ρ without sample i is (ρ − UU†)/(1 − t), where U has a column √(w/W)|ψ⟩ for each vector of the sample and t = Tr UU† is
its share of the weight. Centred states have one more column: deleting a sample moves the mean. With
Tr B ln B − Tr A ln A = −t − ∫₀^∞ [ln det(1 − U†(A + s)⁻¹U) + t/(1 + s)] ds for B = A − UU†, the entropy needs matrices
no larger than a sample's vectors at some 20 nodes s, which are spaced evenly in ln s.

Where only some of a sample's vectors were kept, UU† is known up to the noise of that choice. Its deviation from tρ is
shrunk until its mean square is the one that pairs of different vectors give without bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.measures.purity import OwnPairs
from ketwork.networks.measures.sample import all_pairs, at_once
from ketwork.networks.measures.state import LayerState

_NOTHING = 1e-12
_STEP = 1.5  # of ln s: the rule's error is e^(−2π²/step), 2e−6 of the second order
_OF_COLUMNS = 1 << 17  # numbers of the samples that are deleted: all of them but in wide layers
_FEWEST = 16
_OF_PAIRS = 1 << 21  # numbers of the matrices of which pairs are taken
_FEWEST_PAIRED = 8
_ROWS = 256  # of the matrices, beside the leading ones; of wider ones some stand for all
_LEADING_ROWS = 128
_LEADING = 16


@dataclass(frozen=True)
class Changes:
    """What deleting samples does to a number: `exact` (m,) to all orders, `linear` (m,) to the first.

    The m samples stand for `shares` of all; in wide layers they are some of the kept ones, of which `first` (R,) has
    the first order. `second` is the variance of the second-order part, ½ Σ_{i≠j} k(i, j)² of its kernel over all pairs.
    """

    exact: Tensor
    linear: Tensor
    shares: Tensor
    first: Tensor
    second: float


@dataclass(frozen=True)
class Leading:
    """What deleting samples does to λ₁: `exact` (R,), and to what the others' leading eigenstate holds of each sample.

    `seen` is Σ ⟨v|A|v⟩ over samples A, with v the leading eigenstate of the state without the sample. It falls short of
    λ₁ by Σₖ Mₖ/(λ₁ − λₖ), M the mean squares of elements of UU† beside the first; so its influence is that of
    λ₁ + Σₖ `turns`ₖ (λ₁ − λₖ), turns = M/(λ₁ − λₖ)². `own` is its variance from the kept samples' spread.
    """

    exact: Tensor
    seen: float
    turns: Tensor
    own: float


@dataclass(frozen=True, eq=False)
class Deletion:
    """The kept samples of a state as parts of it that can be deleted."""

    state: LayerState

    @cached_property
    def possible(self) -> bool:
        """Whether something is left without any of the samples."""
        sample = self.state.sample
        return sample.samples > 1 and sample.total > 0 and float(self._parts.max()) < 1 - 1e-9

    @cached_property
    def entropy(self) -> Changes:
        """Of S(ρ), in nats."""
        eigenvalues = self._held
        which, shares = self._deleted
        columns, t = self._columns(which)
        s = -float(torch.special.xlogy(eigenvalues, eigenvalues).sum())

        def first_order(weights: Tensor, share: Tensor) -> Tensor:
            return share * s + weights @ eigenvalues.log()

        change = first_order(columns.abs().square().sum(dim=-1), t)
        exact = change + (t * change - _remainder(columns, t, eigenvalues)) / (1 - t)
        first = first_order(self._weights, self._parts) * math.sqrt(self._kept)
        return Changes(exact, first[which], shares, first, self._second(self._kernels))

    @cached_property
    def populations(self) -> Changes:
        """Of S(diag ρ), in nats."""
        p = self.state.populations
        some = p > 0
        p, (a, moved, kept) = p[some] / p.sum(), self._diagonals
        s = -float(torch.special.xlogy(p, p).sum())
        t = (a + moved).sum(dim=1)
        scale = _scale(t, kept)
        left = (p - (a + moved)[:, some] * scale[:, None]) / (1 - t * scale)[:, None]
        left = left.clamp(min=0)
        exact = -torch.special.xlogy(left, left).sum(dim=1) - s
        first = (a.sum(dim=1) * s + a[:, some] @ p.log()) * math.sqrt(kept)
        which, shares = self._deleted
        return Changes(exact[which], first[which], shares, first, self._second(self._population_kernel))

    @cached_property
    def coherence(self) -> Changes:
        """Of S(diag ρ) − S(ρ), in nats."""
        classical, quantum = self.populations, self.entropy
        return Changes(
            classical.exact - quantum.exact,
            classical.linear - quantum.linear,
            classical.shares,
            classical.first - quantum.first,
            self._second(self._kernels - self._population_kernel),
        )

    @cached_property
    def top(self) -> Leading:
        """Of λ₁. The eigenstates without a sample come from the span of the `_LEADING` first ones.

        What others add is of second order.
        """
        eigenvalues, shares = self._held, self.state.sample.shares
        n, r = self.state.sample.samples, len(shares)
        m = min(_LEADING, len(eigenvalues))
        columns, t = self._columns(slice(None), m)
        first = columns[:, 0]  # (R, q)
        inside = columns @ columns.mH
        values, vectors = torch.linalg.eigh(torch.diag(eigenvalues[:m]).to(inside) - inside)
        amplitudes = self.state.amplitudes[..., : len(self._held)]
        each = self._lengths[1].square().to(amplitudes.real.dtype) * amplitudes[..., 0].conj()
        row = (amplitudes[..., m:].mT @ each[..., None])[
            ..., 0
        ]  # (R, r − m): elements of UU† beside the first
        beside = self._kept * row.abs().square().double()
        gaps = (eigenvalues[0] - eigenvalues[1:]).clamp(min=_NOTHING)
        outside = (beside / gaps[m - 1 :]).sum(dim=-1)
        exact = (values[:, -1] + outside) / (1 - t) - eigenvalues[0]
        leading = vectors[:, :, -1]
        held = (leading.conj()[:, None] @ columns)[:, 0].abs().square().sum(dim=-1) - 2 * outside
        moved = held - first.abs().square().sum(dim=-1)
        squares = shares @ torch.cat([inside[:, 0, 1:].abs().square(), beside], dim=1)
        total = float(shares @ moved)
        own = float(shares @ (n * moved - total).square()) / n / max(r - 1, 1)
        return Leading(
            exact, float(eigenvalues[0]) + min(total, 0.0), squares / (gaps.square() + squares), own
        )

    @property
    def first_of_top(self) -> Tensor:
        """The first order of λ₁, (R,)."""
        return self._parts * float(self._held[0]) - self._weights[:, 0]

    @cached_property
    def purity(self) -> tuple[Changes, float]:
        """Of Tr ρ² from pairs of different samples; and its value.

        (Tr ρ̂² − Σᵢ‖Aᵢ‖²)/(1 − Σᵢtᵢ²), with Aᵢ = UU† of sample i; for N unit vectors (N Tr ρ̂² − 1)/(N − 1). `OwnPairs`
        has both sums.
        """
        state, sample = self.state, self.state.sample
        own, trace = (part / sample.total**2 for part in sample.own())
        plain, pairs = state.purity, OwnPairs.from_state(state)
        share = pairs.t / pairs.total**2
        top, bottom = plain - pairs.r * share, 1 - share
        if bottom <= 0:
            return Changes(own, own, sample.shares, own, math.nan), math.nan
        t = sample.sums(torch.ones_like(sample.weights))
        values = state.weights @ state.eigenvalues + state.outside * state.elsewhere
        with_all = sample.sums(values)
        left = bottom - 2 * t + 2 * trace
        exact = (top - 2 * (with_all - own)) / left - top / bottom
        linear = 2 * (t * plain - with_all)
        return Changes(
            exact, linear, sample.shares, linear, self._second(2 * self._flat_kernels)
        ), top / bottom

    @cached_property
    def _held(self) -> Tensor:
        """The eigenvalues that are not 0, (r,), the first ones."""
        eigenvalues = self.state.eigenvalues
        held = eigenvalues[: int((eigenvalues > _NOTHING * eigenvalues[0]).sum())]
        return held / held.sum()

    @cached_property
    def _parts(self) -> Tensor:
        """t of each kept sample, (R,)."""
        return self.state.sample.sums(torch.ones_like(self.state.sample.weights))

    @cached_property
    def _lengths(self) -> tuple[Tensor, Tensor, Tensor]:
        """√(w/W) of each kept vector, (R, P), the same scaled to all T of a sample, and of a sample's mean, (R,)."""
        sample = self.state.sample
        more = sample.counts.double() / sample.kept
        lengths = (sample.weights * sample.valid / sample.total).sqrt()
        others = (self.state.count - sample.counts.double()).clamp(min=1)
        return lengths, lengths * more.sqrt()[:, None], more / others.sqrt()

    @cached_property
    def _weights(self) -> Tensor:
        """The weight of each kept sample on each eigenstate, (R, r)."""
        _, each, _ = self._lengths
        return (self.state.weights[..., : len(self._held)] * each.square()[..., None]).sum(dim=1)

    def _columns(self, which: Tensor | slice, most: int | None = None) -> tuple[Tensor, Tensor]:
        """U of these samples in the basis of eigenstates, (m, r, q), less the noise of the choice, and its t.

        At `most` so many eigenstates are taken.
        """
        lengths, each, mean = (part[which] for part in self._lengths)
        amplitudes = self.state.amplitudes[..., : len(self._held)][..., :most][which]
        rows = amplitudes.to(torch.complex128 if amplitudes.is_complex() else torch.float64)
        columns, t = rows * each[..., None], self._parts[which]
        if self.state.center:
            moved = (rows * lengths[..., None]).sum(dim=1, keepdim=True) * mean[:, None, None]
            columns, t = torch.cat([columns, moved], dim=1), t + self._moved[which].sum(dim=1)
        scale = _scale(t, self._kept)
        return columns.mT * scale.sqrt()[:, None, None], t * scale

    @cached_property
    def _moved(self) -> Tensor:
        """The diagonal, in the basis of neurons, of what the moving mean adds to UU† where ρ is centred, (R, d)."""
        lengths, _, mean = self._lengths
        kets = self.state.sample.kets
        total = (kets * lengths[..., None].to(kets)).sum(dim=1) * mean[:, None].to(kets)
        return total.abs().square().double()

    @cached_property
    def _deleted(self) -> tuple[Tensor, Tensor]:
        """Samples that are deleted to all orders, and their shares."""
        numbers = len(self._held) * (self.state.sample.kets.shape[1] + self.state.center)
        return self.state.sample.some(max(_FEWEST, _OF_COLUMNS // numbers))

    @cached_property
    def _some(self) -> tuple[Tensor, Tensor]:
        """Samples of which pairs are taken, and their shares."""
        return self.state.sample.some(max(_FEWEST_PAIRED, _OF_PAIRS // len(self._held) ** 2))

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor, float]:
        """⟨Dᵢ, Dⱼ⟩ of the deviations D = UU† − tρ under the second derivative of −S, and plainly; and what is kept.

        The second derivative weighs the elements of D by the divided differences of ln λ. Cost O(m d² (P + m)).
        """
        eigenvalues = self._held
        which, shares = self._some
        sample = self.state.sample
        _, each, _ = self._lengths
        amplitudes = self.state.amplitudes[..., : len(eigenvalues)][which]
        exact = torch.float64 if len(eigenvalues) <= 256 else torch.float32
        columns = (amplitudes * each[which][..., None].to(amplitudes.real.dtype)).mT
        columns = columns.to(torch.promote_types(exact, torch.complex64) if columns.is_complex() else exact)
        t = self._parts[which].to(exact)
        weights = amplitudes.abs().square().to(exact)  # (m, P, r)
        weighted = columns.new_zeros(len(which), len(which)).real.double()
        plain, alone = weighted.clone(), torch.zeros_like(weights[..., 0])
        every = _rows(len(eigenvalues)).to(eigenvalues.device)
        for rows in every.split(max(1, 2 * _OF_PAIRS // (len(which) * len(eigenvalues)))):
            some = eigenvalues[rows].to(exact)
            times = torch.where(rows < _LEADING_ROWS, 1.0, _stride(len(eigenvalues))).to(some)
            differences = _divided(some, eigenvalues.to(exact)) * times[:, None]
            parts = columns[:, rows] @ columns.mH  # (m, rows, r)
            here = torch.arange(len(rows), device=rows.device)
            parts[:, here, rows] -= t[:, None] * some
            for matrix, scale in ((plain, times[:, None]), (weighted, differences)):
                flat = parts * scale.sqrt()
                flat = torch.view_as_real(flat) if flat.is_complex() else flat
                flat = flat.flatten(1)
                matrix += (flat @ flat.mT).double()
            if not sample.complete:
                own, mine = differences[here, rows] * some, weights[..., rows]
                alone += (mine * (weights @ differences.mT)).sum(dim=-1) - 2 * (mine @ own) + own @ some
        kept = 1.0
        if not sample.complete:
            same = (each[which].double() ** 4 * alone.double()).sum(dim=1)
            here, counts = sample.valid.sum(dim=1)[which].double(), sample.counts[which].double()
            more = (counts / here.clamp(min=1)) ** 2
            pairs = weighted.diagonal()
            true = all_pairs(same / more, pairs / more, here, counts)
            kept = _ratio(float(shares @ true), float(shares @ pairs))
        return weighted, plain, kept

    @property
    def _kept(self) -> float:
        """The share of deviations' squares that is no noise of the choice of vectors."""
        return self._pairs[2]

    @property
    def _kernels(self) -> Tensor:
        return self._pairs[0] * self._kept

    @property
    def _flat_kernels(self) -> Tensor:
        return self._pairs[1] * self._kept

    @cached_property
    def _diagonals(self) -> tuple[Tensor, Tensor, float]:
        """The diagonal of each sample's UU† in the basis of neurons, (R, d), and of its mean's column; what is kept."""
        sample = self.state.sample
        each, p = self._lengths[1], self.state.populations
        inverse = torch.where(p > 0, 1 / p.clamp(min=1e-300), 0.0)
        parts, alone, some = [], [], at_once(sample.kets)
        for kets, lengths in zip(sample.kets.split(some), each.split(some), strict=True):
            weights = kets.abs().square().double()
            parts.append((lengths.square()[:, None] @ weights)[:, 0])
            if not sample.complete:
                alone.append((lengths**4 * (weights.square() @ inverse - 1)).sum(dim=1))
        a = torch.cat(parts)
        moved = self._moved if self.state.center else torch.zeros_like(a)
        if sample.complete:
            return a, moved, 1.0
        same = torch.cat(alone)
        pairs = (a - self._parts[:, None] * p).square() @ inverse
        here, counts = sample.valid.sum(dim=1).double(), sample.counts.double()
        more = (counts / here.clamp(min=1)) ** 2
        true = all_pairs(same / more, pairs / more, here, counts)
        return a, moved, _ratio(float(sample.shares @ true), float(sample.shares @ pairs))

    @cached_property
    def _population_kernel(self) -> Tensor:
        """⟨Dᵢ, Dⱼ⟩ of the deviations' diagonals under the second derivative of −S(diag ρ)."""
        which, _ = self._some
        a, _, kept = self._diagonals
        p = self.state.populations
        some = p > 0
        deviation = (a[which] - self._parts[which][:, None] * p)[:, some] / p[some].sqrt()
        return deviation @ deviation.mT * kept

    def _second(self, kernel: Tensor) -> float:
        """½ Σ k(i, j)² over all pairs of different samples."""
        _, shares = self._some
        squares = kernel.square()
        squares = squares - torch.diag(squares.diagonal())
        return float(shares @ squares @ shares) / 2


def _stride(r: int) -> int:
    return max(1, math.ceil((r - _LEADING_ROWS) / _ROWS))


def _rows(r: int) -> Tensor:
    """The leading rows of a matrix of r, and evenly spaced ones that stand for the others."""
    lead = min(_LEADING_ROWS, r)
    return torch.cat([torch.arange(lead), torch.arange(lead, r, _stride(r))])


def _ratio(true: float, pairs: float) -> float:
    return min(max(true / pairs, 0.0), 1.0) if pairs > 0 else 1.0


def _scale(t: Tensor, kept: float) -> Tensor:
    """Of UU† with trace t, so that (ρ − UU†)/(1 − t) becomes ρ + √kept (what it was − ρ), (R,)."""
    c = math.sqrt(kept)
    return c / (1 - (1 - c) * t)


def _divided(some: Tensor, eigenvalues: Tensor) -> Tensor:
    """(ln λⱼ − ln λₖ)/(λⱼ − λₖ) with λⱼ of the first and λₖ of the second; 1/λ where both are equal."""
    difference, total = some[:, None] - eigenvalues, some[:, None] + eigenvalues
    near = (
        difference.abs() < 1e-3 * total
    )  # there ln(λⱼ/λₖ) = 2x + …, x = (λⱼ − λₖ)/(λⱼ + λₖ), is exact to 3e−7
    logs = some.log()[:, None] - eigenvalues.log()
    return torch.where(near, 2 / total, logs / torch.where(near, 1.0, difference))


def _remainder(columns: Tensor, t: Tensor, eigenvalues: Tensor) -> Tensor:
    """∫₀^∞ [r(s) − r₀(s)] ds with r = −ln det(1 − X) − Tr X, X = U†(A + s)⁻¹U, and r₀ that of UU† = tA, (R,)."""
    low, high = max(float(eigenvalues[-1]), 1e-9) / 3e4, 300 * float(eigenvalues[0])
    steps = math.ceil(math.log(high / low) / _STEP)
    nodes = low * torch.exp(_STEP * torch.arange(steps + 1, dtype=torch.float64))
    total = torch.zeros_like(t)
    for i, s in enumerate(nodes.tolist()):
        inverse = 1 / (eigenvalues + s)
        shared = t[:, None] * (eigenvalues * inverse)
        value = _beyond(columns, inverse) + (torch.log1p(-shared) + shared).sum(dim=1)
        edge = (
            1 + 1 / math.expm1(_STEP) if i in (0, len(nodes) - 1) else 1.0
        )  # the nodes beyond, where s r is geometric
        total += value * (s * edge)
    return total * _STEP


def _beyond(columns: Tensor, inverse: Tensor) -> Tensor:
    """−ln det(1 − X) − Tr X of X = U† diag(inverse) U, for U (R, r, q)."""
    scaled = columns * inverse.sqrt()[:, None]
    r, q = columns.shape[1:]
    if q == 1 or r == 1:
        trace = scaled.abs().square().sum(dim=(1, 2))
        return -torch.log1p(-trace.clamp(max=1 - 1e-12)) - trace
    x = scaled.mH @ scaled if q <= r else scaled @ scaled.mH
    trace = x.diagonal(dim1=1, dim2=2).real.sum(dim=1)
    one = torch.eye(len(x[0]), dtype=x.dtype, device=x.device) * (1 + 1e-12)
    return -torch.linalg.slogdet(one - x).logabsdet - trace
