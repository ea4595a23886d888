"""Holevo bits of a layer: what one measurement of one copy can tell of the label, and their chance level."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ketwork.networks.measures.label_state import LabelState
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.sketch_bounds import Known, around
from ketwork.networks.moments import ClassMoments, Rows
from ketwork.quantum import Density, Estimate, Interval, shannon_entropy

_COLUMNS = 1024
_SIZES = 6
_SUBSETS = 8  # of at most so many kets; one of more, where chance matters less and a subset costs more
_SMALL = 128


@measure(
    "holevo",
    title="Holevo bits",
    unit="bit",
    definition="Holevo's χ = S(Σ pₖρₖ) − Σ pₖ S(ρₖ) of the labels' states: one measurement of one copy of a pooled ket "
    "gives no more bits of the label (a network reads the whole vector, so its accuracy is not bounded by it)",
    needs="classes",
    stderr=False,
    column=Column("Holevo", "bits", 7),
    reading="Between its chance level and the entropy of the labels, log₂ K where all are equally frequent.",
)
def holevo_bits(state: LabelState) -> Estimate:
    """χ, with its bounds where the labels' states are sketches."""
    if not state.several:
        return Estimate()
    if state.moments.sketched:
        low, high = bounds(state.moments, state.labelled.complex)
        return Estimate((low + high) / 2, bounds=around((low + high) / 2, low, high))
    return Estimate(bits(state.moments, state.labelled.complex))


@measure(
    "holevo_null",
    title="chance level of Holevo bits",
    unit="bit",
    definition="what random labels of the same counts would give from as many samples",
    needs="classes",
    stderr=False,
    column=Column("chance", "bits", 11),
)
def chance_level(state: LabelState) -> Estimate:
    """χ of random labels, from the samples that were kept in full."""
    if not state.several:
        return Estimate()
    kept = Rows.joined([state.labelled.held, state.labelled.checks])
    kept = kept[kept.keys.argsort(stable=True)]  # in whatever order they came together
    counts = [int(count) for count in state.moments.counts.tolist() if count > 0]
    return Estimate(null_bits(as_complex(kept.kets, state.labelled.complex), counts))


def state_of(moments: ClassMoments, code: int, is_complex: bool) -> Density:
    """The state of the kets of one class, of what the class keeps as its own where factors were truncated."""
    factor, matrix = moments.own(code)
    if factor is not None:
        factor = _complex_rows(factor).conj() if is_complex else factor  # rows are ⟨ψ|
        return Density.from_factor(factor / torch.linalg.matrix_norm(factor))
    assert matrix is not None
    return _dense(matrix, is_complex)


def bits(moments: ClassMoments, is_complex: bool) -> float:
    """Holevo's χ = S(Σ pₖρₖ) − Σ pₖ S(ρₖ) in bits, with the classes' frequencies as pₖ.

    Where factors were truncated, the largest entropies that fit what was kept and lost are taken, so that it
    is a lower bound: S(ρₖ) ≤ −Σ λ log λ − δₖ log δₖ + δₖ S(rest of class k), with λ what class k keeps of its
    weight and δₖ what it lost. The last term is at most log of how many directions class k lost; and by
    concavity Σ pₖ δₖ S(rest of class k) ≤ δ S(all rests together).

    Not for sketched moments, which have `bounds`. Cost: O(min(n, d)² d) for the mean state and each class.
    """
    n = float(moments.counts.sum())
    weights = (moments.counts / n).tolist()
    codes = moments.present.nonzero()[:, 0].tolist()
    if moments.total is None:
        inside = sum(weights[code] * float(state_of(moments, code, is_complex).entropy()) for code in codes)
        return max(float(_average(moments, is_complex).entropy()) - inside, 0.0)
    inside = rests = 0.0
    for code in codes:
        factor, _ = moments.own(code)
        assert factor is not None
        kept = torch.linalg.eigvalsh(factor @ factor.T).clamp(min=0)
        lost = moments.lost[code : code + 1]
        shares = torch.cat([kept, lost]) / (kept.sum() + lost)
        inside -= weights[code] * float(torch.special.xlogy(shares, shares).sum()) / math.log(2)
        directions = min(int(moments.counts[code]) - len(factor), moments.d)
        rests += weights[code] * float(shares[-1]) * math.log2(max(directions, 1))
    if moments.discarded > 0:
        inside += min(rests, moments.discarded * float(_dense(moments.rest, is_complex).entropy()))
    return max(float(_dense(moments.total, is_complex).entropy()) - inside, 0.0)


def bounds(moments: ClassMoments, is_complex: bool) -> Interval:
    """The bounds of χ where the classes' moments are sketches.

    Each entropy lies in the interval that its sketch allows (`intervals`), and χ between the smallest of the mean state
    less the largest of the classes and the reverse; it is never below 0 nor above the entropy of the frequencies. The
    mean state's sketch is that of all classes' rows together. Cost O(R² d) for R rows in all.
    """
    n = float(moments.counts.sum())
    weights = moments.counts / n
    fold = (
        2.0 if is_complex else 1.0
    )  # a real error E of the parts side by side is one of norm ≤ 2‖E‖ of kets

    def entropies(rows: Tensor, lost: float, slack: float, count: float) -> Interval:
        kept = torch.linalg.eigvalsh(small_gram(as_complex(rows, is_complex))).flip(0).clamp(min=0)
        total = float(kept.sum()) + lost
        rank = min(round(count), moments.d // int(fold))
        return Known(kept / total, fold * slack / total, max(rank, 1)).entropy()

    low, high = entropies(moments.rows, float(moments.lost.sum()), float(moments.slack.sum()), n)
    for code in moments.present.nonzero()[:, 0].tolist():
        own = moments.rows[moments.owners == code]
        least, most = entropies(
            own, float(moments.lost[code]), float(moments.slack[code]), float(moments.counts[code])
        )
        low, high = low - float(weights[code]) * most, high - float(weights[code]) * least
    most_bits = float(shannon_entropy(weights))
    return min(max(low, 0.0), most_bits), min(max(high, 0.0), most_bits)


def small_gram(rows: Tensor) -> Tensor:
    """The Gram matrix of the rows (r, d), (r, r), in float64 or complex128, without a wide copy of all of them."""
    wide = torch.complex128 if rows.is_complex() else torch.float64
    gram = torch.zeros(len(rows), len(rows), dtype=wide, device=rows.device)
    for columns in rows.split(_COLUMNS, dim=1):
        part = columns.to(wide)
        gram += part @ part.mH
    return gram


def null_bits(kets: Tensor, counts: list[int]) -> float:
    """What χ would be with random labels of these counts: S_n − Σ pₖ S_{nₖ}, n = Σ nₖ.

    S_m is the mean entropy of the state of m kets drawn whatever their label, measured on subsets of `kets`
    (r, d), a fair sample of the data, less what chance makes of the subset's entropy to first order; beyond
    r it is continued by S_∞ − c/m, the leading order of its bias. NaN for fewer than 4 kets.
    """
    r, n = len(kets), sum(counts)
    if r < 4:
        return math.nan
    order = torch.randperm(r, generator=torch.Generator().manual_seed(0)).to(kets.device)
    if r < kets.shape[1]:  # their span says everything
        values, vectors = torch.linalg.eigh(small_gram(kets)[order][:, order])
        kets = vectors * values.clamp(min=0).sqrt().to(vectors)
    else:
        kets = kets.to(torch.complex128 if kets.is_complex() else torch.float64)[order]
    smaller = {count for count in counts if count < r}
    if len(smaller) > _SIZES:
        low, high = min(smaller), max(smaller)
        smaller = {round(low * (high / low) ** (i / (_SIZES - 1))) for i in range(_SIZES)}
    total, surprisal = _entropy_and_surprisal(kets)
    curve = {size: _mean_entropy(kets, surprisal - total, size) for size in smaller | {r // 2}} | {r: total}
    entropy = _continued(curve, r)
    return sum(count / n * (entropy(n) - entropy(count)) for count in counts)


def as_complex(kets: Tensor, is_complex: bool) -> Tensor:
    """Kets as they were, where complex ones are kept as their real and imaginary parts side by side."""
    return _complex_rows(kets) if is_complex else kets


def _complex_rows(rows: Tensor) -> Tensor:
    half = rows.shape[1] // 2
    return torch.complex(rows[:, :half], rows[:, half:])


def _average(moments: ClassMoments, is_complex: bool) -> Density:
    if moments.dense is not None:
        return _dense(moments.dense.sum(dim=0), is_complex)
    rows = moments.rows.double()
    rows = _complex_rows(rows).conj() if is_complex else rows
    if len(rows) > rows.shape[1]:
        matrix = rows.mH @ rows
        return Density(matrix / matrix.diagonal().real.sum(), False, (rows.shape[1],))
    return Density.from_factor(rows / torch.linalg.matrix_norm(rows))


def _dense(matrix: Tensor, is_complex: bool) -> Density:
    matrix = matrix / matrix.diagonal().sum()
    if is_complex:
        half = matrix.shape[0] // 2
        rr, ri, ii = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
        matrix = torch.complex(rr + ii, ri.T - ri)
    return Density(matrix, False, (matrix.shape[0],))


def _entropy_and_surprisal(kets: Tensor) -> tuple[float, Tensor]:
    """S(ρ) of the mean state, and −⟨ψ|log ρ|ψ⟩ of each ket, whose mean it is, in bits."""
    r, d = kets.shape
    if r <= d:
        values, vectors = torch.linalg.eigh(kets @ kets.mH / r)
        weights = vectors.abs().square() * (r * values.clamp(min=0))
    else:
        values, vectors = torch.linalg.eigh(kets.mT @ kets.conj() / r)
        weights = (kets.conj() @ vectors).abs().square()
    logs = torch.where(values > 1e-15, values, 1.0).log2()
    surprisal = -(weights @ logs)
    return float(surprisal.mean()), surprisal


def _mean_entropy(kets: Tensor, excess: Tensor, size: int) -> float:
    """The entropy of the state of `size` kets, averaged over disjoint subsets, less their mean excess surprisal."""
    groups = min(len(kets) // size, _SUBSETS if size <= _SMALL else 1)
    parts = kets[: groups * size].reshape(groups, size, -1)
    gram = parts @ parts.mH if size < parts.shape[-1] else parts.mH @ parts
    values = torch.linalg.eigvalsh(gram / size).clamp(min=0)
    entropies = -torch.special.xlogy(values, values).sum(dim=-1) / math.log(2)
    return float(entropies.mean() - excess[: groups * size].mean())


def _continued(curve: dict[int, float], r: int) -> Callable[[int], float]:
    """S_m between the sizes of `curve`, straight in log m, and beyond the largest, r."""
    sizes = sorted(curve)
    slope = (curve[r] - curve[r // 2]) / (1 / (r // 2) - 1 / r)

    def entropy(m: int) -> float:
        if m >= r:
            return curve[r] + slope * (1 / r - 1 / m)
        above = next(size for size in sizes if size >= m)
        below = max((size for size in sizes if size <= m), default=above)
        if above == below:
            return curve[above]
        share = math.log(m / below) / math.log(above / below)
        return curve[below] + share * (curve[above] - curve[below])

    return entropy
