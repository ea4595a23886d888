"""Measures of pairs of layers, for all pairs at once: CKA, root fidelity, explained share. See `pairs` for notation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.measures import pair_errors
from ketwork.networks.measures.nuclear import ROUNDING, null_root_fidelity
from ketwork.networks.measures.overlaps import Axes, Overlaps
from ketwork.networks.measures.pair_errors import Evidence
from ketwork.networks.measures.pairs import (
    PAIR_MEASURES,
    Pair,
    PairMeasure,
    Pairs,
    groups,
    matrix_measure,
    pair_measure,
)
from ketwork.networks.measures.threads import in_threads
from ketwork.quantum import Estimate

_CLEAR = 2.0  # times the chance level, below which the bounds are far apart
_LEFT = 0.1  # share of the samples that a fit must leave over for its adjustment to mean anything


@dataclass(frozen=True)
class Similarities:
    """Every measure's matrix and those of standard errors (NaN where there is none), and the ranks of the layers.

    `unknown` says why there are no standard errors, where that is so. `pairs` are those that were computed, by the
    places of their layers, of `total` that there are.
    """

    matrices: dict[str, Tensor]
    errors: dict[str, Tensor]
    ranks: list[int] | None
    unknown: str | None = None
    pairs: list[tuple[int, int]] = field(default_factory=list)
    total: int = 0


@dataclass(frozen=True)
class Effort:
    """How long pairs are worked at: a number of `seconds` (None: until all are done), or until it is `stopped`.

    Pairs of adjacent layers are computed whatever their time. `on_pair` gets how many are done, and how many there are.
    `only` these are computed, if given.
    """

    seconds: float | None = None
    stopped: Callable[[], bool] = lambda: False
    on_pair: Callable[[int, int], None] = lambda done, total: None
    only: Collection[tuple[int, int]] | None = None


_ALL = Effort()


def similarities(
    overlaps: Overlaps, wanted: Collection[str], *, center: bool = True, effort: Effort = _ALL
) -> dict[str, Tensor]:
    """The matrices of `measured`, without standard errors."""
    return measured(overlaps, wanted, center=center, errors=False, effort=effort).matrices


def measured(
    overlaps: Overlaps,
    wanted: Collection[str],
    *,
    center: bool = True,
    errors: bool = True,
    effort: Effort = _ALL,
) -> Similarities:
    """The matrices of the wanted groups: all layers × all layers, or first × second side, with their `errors`.

    Pairs that the `effort` did not reach, the farthest layers, are NaN. `center` is for Bures alone. Cost: CKA O(N² Σd)
    from rows; the others O(min(d, N)³) a pair; errors O(m d²) more for each pair and m samples that were kept.
    """
    size = len(overlaps.constant)
    measures = [PAIR_MEASURES[name] for group, names in groups().items() if group in wanted for name in names]
    by_pair = [measure for measure in measures if measure.of_pair is not None]
    of_all = [measure for measure in measures if measure.of_all is not None]
    matrices = {m.name: torch.full((size, size), math.nan, dtype=torch.float64) for m in measures}
    stderrs = {m.name: torch.full((size, size), math.nan, dtype=torch.float64) for m in measures if m.stderr}
    axes = evidence = None
    along: list[dict[int, Tensor]] = [{} for _ in range(size)]
    if by_pair:
        axes = overlaps.axes()
    if errors or overlaps.clustered:
        evidence = Evidence.from_overlaps(overlaps, axes)
    nulls = None
    places = overlaps.nearest()
    done: Collection[tuple[int, int]] = places
    if axes is not None:
        if center and "bures" in wanted:
            nulls = _chance_levels(overlaps, axes, evidence)
        filled = _Filled(matrices, stderrs, along)
        squares, done = _by_pair(overlaps, axes, by_pair, filled, evidence, center, nulls, effort)
    else:
        squares = overlaps.squares().cpu()
        if evidence is not None and any(measure.errors is not None for measure in of_all):
            along = [dict(overlaps.along(i)) for i in range(size)]
    pairs = Pairs(overlaps, squares, axes, center, evidence, along, nulls)
    for measure in of_all:
        assert measure.of_all is not None
        matrices[measure.name] = measure.of_all(pairs).cpu()
        if measure.errors is not None and evidence is not None:
            stderrs[measure.name] = measure.errors(pairs).cpu()
    for i, j in {*places}.difference(done):
        for matrix in (*matrices.values(), *stderrs.values()):
            matrix[i, j] = matrix[j, i] = math.nan
    ranks = None if axes is None else [layer.rank for layer in axes]
    unknown = overlaps.unknown if evidence is None else evidence.unknown
    if overlaps.split is None:
        return Similarities(matrices, stderrs, ranks, unknown, list(done), len(places))
    sides = slice(None, overlaps.split), slice(overlaps.split, None)
    cut, cut_errors = (
        {name: each[sides].clone() for name, each in part.items()} for part in (matrices, stderrs)
    )
    return Similarities(cut, cut_errors, ranks, unknown, list(done), len(places))


@dataclass(frozen=True)
class _Filled:
    """What is filled in pair by pair."""

    matrices: dict[str, Tensor]
    errors: dict[str, Tensor]
    along: list[dict[int, Tensor]]


def _by_pair(
    overlaps: Overlaps,
    axes: list[Axes],
    measures: Collection[PairMeasure],
    filled: _Filled,
    evidence: Evidence | None,
    center: bool,
    nulls: Tensor | None,
    effort: Effort,
) -> tuple[Tensor, set[tuple[int, int]]]:
    """Fills in the measures of single pairs, nearest layers first; returns ‖C‖² of all that it reached, and which."""
    squares = torch.diag(torch.stack([layer.values.square().sum() for layer in axes])).cpu()
    weights = [float(weight) for weight in overlaps.weights]

    def enter(measure: PairMeasure, place: tuple[int, int], estimate: Estimate) -> None:
        filled.matrices[measure.name][place] = estimate.value
        if measure.name in filled.errors:
            filled.errors[measure.name][place] = estimate.stderr

    def alone(i: int) -> None:
        if not overlaps.constant[i]:
            for measure in measures:
                enter(measure, (i, i), Estimate(measure.itself(axes[i], overlaps.n), 0.0))
        if evidence is not None:
            filled.along[i][i] = evidence.rows[i].square() @ axes[i].values

    def together(i: int, j: int) -> None:
        if overlaps.constant[i] or overlaps.constant[j]:
            return
        c = overlaps.block(i, j)
        squares[i, j] = squares[j, i] = float(c.square().sum())
        if evidence is not None:
            filled.along[i][j] = ((evidence.rows[i] @ c) * evidence.rows[j]).sum(dim=1)
        both, null = (weights[i], weights[j]), math.nan if nulls is None else float(nulls[i, j])
        pair = Pair(c, axes[i], axes[j], both, overlaps.n, center, (i, j), evidence, null)
        swapped = pair.swapped
        for measure in measures:
            assert measure.of_pair is not None
            enter(measure, (i, j), forth := measure.of_pair(pair))
            enter(measure, (j, i), forth if measure.symmetric else measure.of_pair(swapped))

    for _ in in_threads(alone, range(len(axes))):
        pass
    wanted = set(overlaps.nearest() if effort.only is None else effort.only)
    places = [place for place in overlaps.nearest() if place in wanted]
    done: set[tuple[int, int]] = set()
    until = math.inf if effort.seconds is None else time.monotonic() + effort.seconds
    first = overlaps.split or 0

    def pair_at(place: int) -> None:
        i, j = places[place]
        adjacent = abs(j - first - i) <= 1
        if effort.stopped() or (time.monotonic() > until and not adjacent):
            return
        together(i, j)
        done.add((i, j))
        effort.on_pair(len(done), len(places))

    for _ in in_threads(pair_at, range(len(places))):
        pass
    return squares, done


def _cka_errors(pairs: Pairs) -> Tensor:
    assert pairs.evidence is not None
    return pair_errors.cka_errors(pairs.evidence, pairs.hsic, pairs.along)


@matrix_measure(
    "cka",
    title="debiased CKA",
    group="cka",
    definition="debiased linear CKA: HSIC₁(X,Y)/√(HSIC₁(X,X) HSIC₁(Y,Y)), 0 on average for unrelated layers, below 0 "
    "by chance; features centred; of positions, over those of different samples",
    errors=_cka_errors,
    scattered=True,
)
def cka(pairs: Pairs) -> Tensor:
    """HSIC₁ of each pair over the root of those of both layers."""
    return pairs.hsic / torch.outer(pairs.hsic.diagonal(), pairs.hsic.diagonal()).sqrt()


@matrix_measure(
    "cka_biased",
    title="biased CKA",
    group="cka",
    definition="linear CKA ‖XᵀY‖²/(‖XᵀX‖ ‖YᵀY‖) of centred features, which few samples inflate",
    scattered=True,
)
def cka_biased(pairs: Pairs) -> Tensor:
    """‖C‖² over the root of those of both layers."""
    diagonal = pairs.squares.diagonal()
    return pairs.squares / torch.outer(diagonal, diagonal).sqrt()


@pair_measure(
    "bures",
    title="Bures",
    group="bures",
    definition="normalised Bures similarity, the root fidelity ‖XᵀY‖_*/√(Tr XᵀX Tr YᵀY) of the sample-side states; "
    "features centred unless center=False; few samples inflate it, which ± counts",
    symmetric=True,
)
def bures(pair: Pair) -> Estimate:
    """‖XᵀY‖_* / √(Tr XᵀX Tr YᵀY); uncentred, with the means put back.

    What few samples add is at most what it has above its lower bound, and the whole of it between unrelated layers; to
    second order √(v² − null²) lacks about as much of a larger one, or more. Layers that are equal but for a rotation
    are so in all data: 1, without an error.
    """
    estimate = pair.nuclear
    if estimate.value > 1 - ROUNDING:
        return Estimate(estimate.value, estimate.stderr)
    beyond = estimate.value**2 - (0.0 if math.isnan(pair.null) else pair.null) ** 2
    bias = max(estimate.value - estimate.low, estimate.value - math.sqrt(max(beyond, 0.0)))
    return Estimate(estimate.value, math.hypot(estimate.stderr, bias))


@pair_measure(
    "bures_corrected",
    title="Bures, corrected",
    group="bures",
    definition="the same less what few samples add: between what rotations that were fitted to the other samples hold "
    "of each, which is never too much, and the jackknife's value, which is right where no singular value is of noise; "
    "– within twice the chance level",
    symmetric=True,
)
def bures_corrected(pair: Pair) -> Estimate:
    """The middle of both bounds, with ± to beyond them; NaN where few samples were kept, or near the chance level."""
    estimate = pair.nuclear
    if estimate.value <= _CLEAR * pair.null:
        return Estimate()
    return estimate.corrected


@matrix_measure(
    "bures_null",
    title="Bures, chance level",
    group="bures",
    definition="the root fidelity to expect of layers with the same spectra and nothing in common, of as many "
    "independent samples",
)
def bures_null(pairs: Pairs) -> Tensor:
    """See `null_root_fidelity`; none for uncentred layers."""
    return torch.full_like(pairs.squares, math.nan) if pairs.nulls is None else pairs.nulls


def _chance_levels(overlaps: Overlaps, axes: list[Axes], evidence: Evidence | None) -> Tensor:
    """The chance levels of Bures similarity of all pairs, (L, L)."""
    spectra = [layer.values.cpu() for layer in axes]
    if not overlaps.clustered:
        return null_root_fidelity(spectra, overlaps.n - 1)
    nulls = torch.full((len(axes), len(axes)), math.nan, dtype=torch.float64)
    for i in range(len(spectra)):
        for j in overlaps.partners(i) if evidence is not None else ():
            assert evidence is not None
            rows = pair_errors.independent_rows(evidence, i, j)
            if math.isfinite(rows):
                level = float(null_root_fidelity([spectra[i], spectra[j]], rows)[0, 1])
                nulls[i, j] = nulls[j, i] = min(level, 1.0)
    return nulls


@pair_measure(
    "r2",
    title="R²",
    group="r2",
    definition="share of the column's layer that the best linear map (with intercept) of the row's layer explains, "
    "adjusted for the fitted parameters (Ezekiel 1930): 0 on average for unrelated layers; NaN where the fit leaves "
    "less than a tenth of the samples over",
    itself=lambda axes, n: _adjusted(1.0, axes.rank, n),
)
def r2(pair: Pair) -> Estimate:
    """The share that is explained, adjusted."""
    if "r2" not in pair.__dict__:  # it is the reverse of the swapped pair too
        pair.__dict__["r2"] = _explained(pair)
    estimate: Estimate = pair.__dict__["r2"]
    return estimate


def _explained(pair: Pair) -> Estimate:
    evidence = pair.evidence
    count, n = float(pair.x.rank), pair.n
    if evidence is not None and not evidence.single:
        count, n = pair_errors.parameters(evidence, *pair.places), evidence.samples
    value = _adjusted(pair.fit, count, n)
    if evidence is None or math.isnan(value):
        return Estimate(value)
    stderr = pair_errors.r2_error(
        evidence,
        *pair.places,
        explained=pair.explained,
        weight=pair.weights[1],
        value=value,
        freedom=1 - count / (n - 1),
    )
    return Estimate(value, stderr)


@pair_measure(
    "r2_reverse",
    title="R² reverse",
    group="r2",
    definition="the same with the roles exchanged",
    itself=lambda axes, n: _adjusted(1.0, axes.rank, n),
)
def r2_reverse(pair: Pair) -> Estimate:
    """R² of the swapped pair."""
    return r2(pair.swapped)


@pair_measure(
    "r2_fit",
    title="fit R²",
    group="r2",
    definition="the same share, not adjusted: 1 whenever the row's layer has N − 1 dimensions",
    stderr=False,
)
def r2_fit(pair: Pair) -> Estimate:
    """The share that is explained of these samples."""
    return Estimate(pair.fit)


@pair_measure(
    "r2_fit_reverse",
    title="fit R² reverse",
    group="r2",
    definition="the same with the roles exchanged",
    stderr=False,
)
def r2_fit_reverse(pair: Pair) -> Estimate:
    """The fitted share of the swapped pair."""
    return r2_fit(pair.swapped)


for _name, _of, _title, _definition in (
    (
        "cka_distance",
        "cka",
        "CKA angle",
        "arccos of cka: an angle between 0 (equal up to rotation and scale) and π/2 (unrelated) [rad]",
    ),
    ("bures_distance", "bures", "Bures angle", "arccos of bures, the Bures angle [rad]"),
):
    PAIR_MEASURES[_name] = PairMeasure(_name, _title, _definition, _of, distance_of=_of, stderr=True)


def _adjusted(fit: float, rank: float, n: int) -> float:
    """A share that a map of that rank fits, adjusted for its parameters (Ezekiel)."""
    left = n - 1 - rank
    return 1 - (1 - fit) * (n - 1) / left if left >= _LEFT * (n - 1) else math.nan
