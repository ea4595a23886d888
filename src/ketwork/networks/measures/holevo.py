"""Holevo bits of a layer: what one measurement of one copy can tell of the label, its error, and its chance level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.measures.holevo_null import chance_bits, independent_share, loss
from ketwork.networks.measures.intervals import student
from ketwork.networks.measures.label_state import LabelState
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.sketch_bounds import Known, around
from ketwork.networks.moments import ClassMoments, Rows
from ketwork.quantum import Density, Estimate, Interval, shannon_entropy

_COLUMNS = 1024
_MOST = 512  # kets of the fitting part that show how much samples differ, at most
_SHARES = (0.5, 0.25)
_FEWEST = 8  # samples, below which they show nothing


@measure(
    "holevo",
    title="Holevo bits",
    unit="bit",
    definition="Holevo's χ = S(Σ pₖρₖ) − Σ pₖ S(ρₖ) of the labels' states over the fitting part: one measurement of "
    "one copy of a pooled ket gives no more bits of the label (a network reads the whole vector, so its accuracy is "
    "not bounded by it); few samples raise it towards its chance level, which ± counts as far as holevo_corrected does",
    needs="classes",
    column=Column("Holevo", "bits", 7),
    reading="Between its chance level and the entropy of the labels, log₂ K where all are equally frequent.",
)
def holevo_bits(state: LabelState) -> Estimate:
    """χ with its error, or with its bounds where the labels' states are sketches."""
    if not state.several:
        return Estimate()
    if state.moments.sketched:
        low, high = bounds(state.moments, state.labelled.complex)
        return Estimate((low + high) / 2, bounds=around((low + high) / 2, low, high))
    plain = state.shared(_plain)
    return Estimate(plain.value, math.hypot(plain.stderr, plain.bias))


@measure(
    "holevo_corrected",
    title="Holevo bits, corrected",
    unit="bit",
    definition="the same less what so few samples give by chance, by the entropies of half and a quarter as many (as a "
    "jackknife does): 0 on average for labels that the layer does not know, below 0 by chance",
    needs="classes",
    column=Column("corrected", "bits", 14, False, beside="holevo"),
)
def holevo_corrected(state: LabelState) -> Estimate:
    """χ less its bias; NaN where the labels' states are known within bounds alone."""
    if not state.several or state.moments.sketched or state.moments.total is not None:
        return Estimate()
    plain = state.shared(_plain)
    return Estimate(plain.value - plain.bias, plain.stderr)


@measure(
    "holevo_null",
    title="chance level of Holevo bits",
    unit="bit",
    definition="what random labels of the same counts would give: the labels of whole samples permuted over the "
    "fitting part, three quarters of the samples",
    needs="classes",
    stderr=False,
    column=Column("chance", "bits", 11, beside="holevo"),
)
def chance_level(state: LabelState) -> Estimate:
    """χ of random labels, from the spectrum of all labels' mean state and the samples that were kept in full."""
    if not state.several:
        return Estimate()
    counts = state.moments.counts
    kets = float(counts.sum()) * state.shared(_worth)
    return Estimate(chance_bits(state.shared(_mean_spectrum), kets, counts[counts > 0].tolist()))


@dataclass(frozen=True)
class Plain:
    """χ as it is, its standard error and its bias (NaN where they are not known)."""

    value: float
    stderr: float = math.nan
    bias: float = math.nan


@dataclass(frozen=True)
class Spectral:
    """A state's eigenvalues (r,), with eigenstates as columns (d, r) or as combinations (n, r) of its factor (n, d)."""

    values: Tensor
    vectors: Tensor
    kets: Tensor | None = None

    @classmethod
    def from_kets(cls, kets: Tensor) -> Spectral:
        """Of the mean state of kets (n, d), on the smaller side; of trace 1, which float32 kets miss by 1e-8."""
        n, d = kets.shape
        if n >= d:
            return cls.from_matrix(kets.mT @ kets.conj())
        kets = kets / torch.linalg.matrix_norm(kets)
        values, vectors = torch.linalg.eigh(kets.conj() @ kets.mT)
        return cls(values.clamp(min=0), vectors, kets)

    @classmethod
    def from_matrix(cls, matrix: Tensor) -> Spectral:
        """Of a matrix ∝ ρ."""
        values, vectors = torch.linalg.eigh(matrix / matrix.diagonal().real.sum())
        return cls(values.clamp(min=0), vectors)

    @property
    def entropy(self) -> float:
        """S(ρ) in bits."""
        return -float(torch.special.xlogy(self.values, self.values).sum()) / math.log(2)

    def surprisal(self, kets: Tensor) -> Tensor:
        """−⟨ψ|log₂ ρ|ψ⟩ of kets (m, d) in the span of ρ."""
        there = self.values > 1e-13
        values, vectors = self.values[there], self.vectors[:, there].conj()
        if self.kets is None:
            weights = (kets @ vectors).abs().square()
        else:
            weights = (kets @ self.kets.mH @ vectors).abs().square() / values
        return -(weights @ values.log2())


def _plain(state: LabelState) -> Plain:
    """χ of the fitting part's states. Where labels kept a part of their state alone, it has no error.

    Entropies of n kets lack c/n + c′/n² of those of many, so that half and a quarter as many lack c/n + 3c′/n² and
    3c/n + 15c′/n² more, from which both follow; what c′ changes of the bias is taken as its error.
    """
    moments, is_complex = state.moments, state.labelled.complex
    if moments.total is not None:
        return Plain(bits(moments, is_complex))
    kets, codes, samples = _evidence(state)
    mean = state.shared(_mean_state)
    value = mean.entropy
    surprise = mean.surprisal(kets)
    n, worth = float(moments.counts.sum()), state.shared(_worth)
    halves, quarters = (-loss(mean.values, worth * n, share) for share in _SHARES)
    for code in moments.present.nonzero()[:, 0].tolist():
        own = _of_label(moments, code, is_complex)
        share = float(moments.counts[code]) / n
        value -= share * own.entropy
        halves, quarters = (
            lost + share * loss(own.values, max(worth * share * n, 1.0), part)
            for lost, part in zip((halves, quarters), _SHARES, strict=True)
        )
        mine = codes == code
        if bool(mine.any()):
            surprise[mine] -= own.surprisal(kets[mine])
    value, bias = max(value, 0.0), 2 * halves - quarters / 3
    _, places = samples.unique(return_inverse=True)
    count = int(places.max()) + 1 if len(places) else 0
    if count < _FEWEST:
        return Plain(value, bias=bias)
    sums = surprise.new_zeros(count).index_add_(0, places, surprise - surprise.mean())
    rows = len(kets) / count
    stderr = student(sums.square()) * float(sums.std()) / rows / math.sqrt(n / rows)
    return Plain(value, math.hypot(stderr, bias - halves), bias)


def _evidence(state: LabelState) -> tuple[Tensor, Tensor, Tensor]:
    """Kets of the fitting part with their labels and samples: all that are there where each is a sample, or checks."""
    checks, moments = state.labelled.checks, state.moments
    kept = Rows.joined([state.labelled.held, checks])
    single = len(kept.samples.unique()) == len(kept)
    if single and moments.dense is None and not moments.discarded:
        step = -(-len(moments.rows) // _MOST)
        kets, codes = moments.rows[::step], moments.owners[::step]
        samples = torch.arange(len(kets), device=kets.device)
    else:
        kets, codes, samples = checks.kets, checks.codes, checks.samples
    return as_complex(kets.double(), state.labelled.complex), codes, samples


def _mean_state(state: LabelState) -> Spectral:
    """The mean state of all labels."""
    moments, is_complex = state.moments, state.labelled.complex
    if moments.total is not None:
        return Spectral.from_matrix(_dense(moments.total, is_complex).data)
    if moments.dense is not None:
        return Spectral.from_matrix(_dense(moments.dense.sum(dim=0), is_complex).data)
    return Spectral.from_kets(as_complex(moments.rows.double(), is_complex))


def _mean_spectrum(state: LabelState) -> Tensor:
    """Its eigenvalues; of a sketch with what it lost spread evenly."""
    moments = state.moments
    if not moments.sketched:
        return state.shared(_mean_state).values
    rows = as_complex(moments.rows, state.labelled.complex)
    kept = torch.linalg.eigvalsh(small_gram(rows)).clamp(min=0)
    rank = min(round(float(moments.counts.sum())), rows.shape[1])
    spread = torch.nn.functional.pad(kept, (max(rank - len(kept), 0), 0)) + float(moments.lost.sum()) / rank
    return spread / spread.sum()


def _of_label(moments: ClassMoments, code: int, is_complex: bool) -> Spectral:
    """The state of one label's kets."""
    factor, matrix = moments.own(code)
    if factor is not None:
        return Spectral.from_kets(as_complex(factor, is_complex))
    assert matrix is not None
    return Spectral.from_matrix(_dense(matrix, is_complex).data)


def _worth(state: LabelState) -> float:
    """How many independent kets one of the fitting part is worth, from the samples kept in full."""
    kept = Rows.joined([state.labelled.held, state.labelled.checks])
    kept = kept[kept.keys.argsort(stable=True)]  # in whatever order they came together
    if not len(kept):
        return 1.0
    _, first = kept.keys.unique_consecutive(return_inverse=True)
    kets = as_complex(kept.kets, state.labelled.complex)
    return independent_share(kets, kept.codes, first, float(state.moments.counts.sum()))


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
