"""The quantities of a layer that a monitor follows: those of a study, and a few that only a training run needs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ketwork._lazy import cached_property
from ketwork.networks.measures import MEASURES, LabelState, LayerState, Measure
from ketwork.networks.moments import LayerAccumulator
from ketwork.networks.monitor.firing import Firing
from ketwork.networks.monitor.views import Views
from ketwork.quantum import Estimate

Needs = Literal["layer", "positions", "classes", "values", "views", "held_out"]


@dataclass(frozen=True)
class Gathered:
    """What one pass over the probe set gathered of a layer; `names` are the labels, `change` is of its parameters.

    `unseen` has the linear probe's scores on samples that the network is not trained on, None without such samples.
    """

    accumulator: LayerAccumulator
    names: tuple[Any, ...] = ()
    change: Estimate = field(default_factory=Estimate)
    views: Views | None = None
    unseen: Mapping[str, Estimate] | None = None

    @cached_property
    def state(self) -> LayerState:
        """What measures of a layer are computed from."""
        return LayerState(self.accumulator, "state")

    @cached_property
    def labels(self) -> LabelState | None:
        """What measures of labels are computed from, None without labels."""
        labelled = self.accumulator.labelled
        return None if labelled is None else LabelState(labelled, self.names)


@dataclass(frozen=True)
class Quantity:
    """One number of a layer: what it is called, what it means, what it needs of the probe set, how it is computed."""

    name: str
    title: str
    unit: str
    definition: str
    needs: Needs
    compute: Callable[[Gathered], Estimate]
    show: Literal["number", "percent", "count"] = "number"

    def __call__(self, row: Gathered) -> Estimate:
        """The number; NaN where the layer does not have it."""
        if row.accumulator.kets == 0 and self.name not in _OF_ZERO:
            return Estimate(unit=self.unit)
        value = self.compute(row)
        return Estimate(value.value, value.stderr, value.bounds, self.unit)


def _spread(row: Gathered) -> Estimate:
    """1 − ‖m‖² with m the mean ket; its influence function is 2‖m‖² − 2 Re⟨m|ψ⟩."""
    moment = row.accumulator.moment
    mean = moment.first / moment.n
    length = float(mean.abs().square().sum())
    sample = row.state.sample
    overlaps = (sample.kets.to(mean.dtype) @ mean.conj()).real
    return Estimate(max(1 - length, 0.0), sample.stderr(-2 * overlaps, -2 * length))


def _dead(row: Gathered) -> Estimate:
    firing = row.accumulator.sums["dead"]
    assert isinstance(firing, Firing)
    return firing.dead()


def _lidar(row: Gathered) -> Estimate:
    return Estimate() if row.views is None else row.views.lidar()


def _gap(row: Gathered) -> Estimate:
    for name, unseen in (row.unseen or {}).items():
        seen = QUANTITIES[name](row)
        return Estimate(seen.value - unseen.value, math.hypot(seen.stderr, unseen.stderr))
    return Estimate()


_OWN = (
    Quantity(
        "spread",
        "spread",
        "",
        "1 − ‖E ψ‖²: the variance of the kets ψ around their mean, 0 when all inputs give the same direction. Of one "
        "ket a sample it is d times the squared standard deviation by which Chen and He (2021, arXiv 2011.10566) see a "
        "representation collapse",
        "layer",
        _spread,
    ),
    Quantity(
        "dead",
        "dead neurons",
        "",
        "share of neurons that are exactly 0 on every sample of the probe set; its error is that of the samples drawn",
        "layer",
        _dead,
        "percent",
    ),
    Quantity(
        "parameter_change",
        "parameter change",
        "",
        "sine of the angle between the layer's parameters at the last look and now, 0 when they stand still or change "
        "their length alone, as by weight decay",
        "layer",
        lambda row: row.change,
    ),
    Quantity(
        "lidar",
        "LiDAR",
        "dimensions",
        "2^S of the spectrum of Σ_w^(−½) Σ_b Σ_w^(−½), with the covariance Σ_b of the means of each sample's views and "
        "that Σ_w around them (Thilak et al. 2023, arXiv 2312.04000): how many dimensions tell samples apart",
        "views",
        _lidar,
    ),
    Quantity(
        "linear_gap",
        "gap of the linear probe",
        "",
        "score of the linear probe on the probe set less that on the held-out set, each fitted and scored on different "
        "samples of its own set: balanced accuracy of classes, R² of numbers. 0 where samples that the network was "
        "trained on are read no better than others",
        "held_out",
        _gap,
    ),
)


_OF_ZERO = ("dead", "parameter_change")
"""Quantities that a layer has whose activations are all zero vectors, or all bad."""

PROBES = ("linear_balanced", "linear_r2")
"""What is read of the labels of samples that the network is not trained on, by the kind of labels."""

_OF_POSITIONS = ("entanglement", "rank_collapse")
"""Measures of a study that exist only where a sample has several positions."""


def _of_study(measure: Measure) -> Quantity:
    def compute(row: Gathered) -> Estimate:
        if measure.needs == "layer":
            return measure(row.state)
        return Estimate() if row.labels is None else measure(row.labels)

    needs: Needs = "positions" if measure.name in _OF_POSITIONS else measure.needs
    return Quantity(
        measure.name, measure.title, measure.unit, measure.definition, needs, compute, measure.show
    )


QUANTITIES: Mapping[str, Quantity] = {
    each.name: each
    for each in (
        *(
            _of_study(measure)
            for measure in MEASURES.values()
            if measure.sums is None and measure.name != "dead"
        ),
        *_OWN,
    )
}
"""All quantities by name."""

DEFAULT = (
    "effective_rank",
    "participation_ratio",
    "spread",
    "norm",
    "dead",
    "rank_collapse",
    "parameter_change",
    "holevo",
    "linear_balanced",
    "linear_r2",
    "linear_gap",
    "lidar",
)
"""What is followed unless others are named; those that the probe set has nothing for are skipped."""


def chosen(names: Sequence[str] | None) -> tuple[Quantity, ...]:
    """The quantities of these names, those of `DEFAULT` for None.

    Raises:
        TypeError, ValueError: a name is of none; the nearest ones are listed.
    """
    if isinstance(names, str) or not (names is None or all(isinstance(name, str) for name in names)):
        raise TypeError(f"Argument `quantities` must be a list of names, but is {names!r}.")
    wanted = DEFAULT if names is None else tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in QUANTITIES:
            near = difflib.get_close_matches(name, QUANTITIES, n=3) or list(DEFAULT)
            raise ValueError(
                f"Argument `quantities` must name quantities of a monitor, but has {name!r}. "
                f"Near it: {', '.join(near)}."
            )
    if not wanted:
        raise ValueError(
            "Argument `quantities` must name at least one, but is empty. Leave it out for the default."
        )
    return tuple(QUANTITIES[name] for name in wanted)


def words(quantity: str, estimate: Estimate) -> str:
    """A value as messages have it: shares in per cent."""
    declared = QUANTITIES.get(quantity)
    if declared is None or declared.show != "percent" or math.isnan(estimate):
        return str(Estimate(estimate.value, estimate.stderr))
    scaled = 100 * Estimate(estimate.value, estimate.stderr)
    return f"{scaled} %"
