"""`Layer`: one row of a study, a layer at one of its calls, with its state, its numbers and its decoded labels."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ketwork._compat import moved
from ketwork._lazy import cached_property
from ketwork.networks.activations import LayerInfo
from ketwork.networks.measures import (
    MEASURES,
    DecodedLabels,
    Decoding,
    LabelCounts,
    LayerState,
    LeadingPlane,
    Measure,
    decisive_share,
    in_html,
    leading_plane,
    leading_states,
    measures_of,
)
from ketwork.networks.moments import LayerAccumulator, LeadingStates, Normalize
from ketwork.quantum import Density, Estimate, Ket
from ketwork.records import Presented, read, write

SCHEMA = 2

FEW_SAMPLES = 4
"""Independent samples a dimension in use, below which the correction of entropy and effective rank is large."""

RANK_SHARE = (
    "effective rank ÷ d: the share of its dimensions that a layer uses, which layers of any width compare by"
)


@dataclass(frozen=True)
class StoredLayer:
    """A layer as a file has it; in a study its accumulator and the labels' names stand elsewhere.

    `plain` has the numbers of the data at hand where `estimates` are corrected for finite data. A small file has the
    `plane` of the two leading states, and `counts` of labels, in place of what they are computed from.
    """

    normalize: Normalize
    center: bool
    estimates: dict[str, Estimate]
    decoding: Decoding | None = None
    accumulator: LayerAccumulator | None = None
    names: list[str | int | bool] = field(default_factory=list)
    plain: dict[str, float] = field(default_factory=dict)
    plane: LeadingPlane | None = None
    counts: LabelCounts | None = None
    decisive: float | None = None


@dataclass(frozen=True, eq=False)
class Layer(Presented):
    """One row of a study: a layer at one of its calls.

    Each measure is an attribute (`layer.entropy`), an `Estimate`; `estimates` has all of them by name, `labels` what
    can be decoded of labels (None without). `density` is the layer's state. `decisive` is the share of the variance of
    its entropy that five of the kept samples carry; None if it is not known, or of fewer than 200 samples.
    """

    accumulator: LayerAccumulator
    normalize: Normalize
    center: bool
    estimates: dict[str, Estimate]
    labels: DecodedLabels | None = None
    decisive: float | None = None

    @classmethod
    def from_accumulator(
        cls,
        accumulator: LayerAccumulator,
        center: bool,
        normalize: Normalize,
        names: tuple[Any, ...],
        task: str | None,
        exact: bool = False,
    ) -> Layer:
        """The row of what was gathered of a layer; wide ones are decomposed if `exact`. Cost O(d³) at most."""
        state = LayerState(accumulator, normalize, center, exact)
        estimates = {each.name: each(state) for each in measures_of()}
        labels = None
        if accumulator.labelled is not None and task is not None:
            # Of a copy: what sorting it replaces is not torn where a signal ends this.
            labelled = copy.copy(accumulator.labelled)
            labels = DecodedLabels.from_moments(labelled, names)
            accumulator.labelled = labelled
            estimates |= labels.estimates
        layer = cls(accumulator, normalize, center, estimates, labels, decisive_share(state))
        if state.decomposed:
            layer.__dict__["leading"] = leading_states(state)
        return layer

    @classmethod
    def unfinished(cls, accumulator: LayerAccumulator, center: bool, normalize: Normalize) -> Layer:
        """The row without its numbers."""
        return cls(accumulator, normalize, center, {})

    @property
    def finished(self) -> bool:
        """Whether its numbers were computed: not where an interruption came before, see `Study.finish`."""
        return bool(self.estimates)

    @property
    def info(self) -> LayerInfo:
        """Its name, call and kind, and where in the module's output its activation stands."""
        return self.accumulator.info

    @property
    def name(self) -> str:
        """The module's dotted path."""
        return self.info.name

    @property
    def call(self) -> int:
        """Which call of the module in a forward pass, from 0; −1 where its calls are pooled."""
        return self.info.call

    @property
    def kind(self) -> str:
        """The module's class."""
        return self.info.kind

    @property
    def aliases(self) -> tuple[str, ...]:
        """The other modules that returned this very tensor."""
        return self.info.aliases

    @property
    def leaf(self) -> str:
        """Where in the module's output its activation stands; "" where it is the output itself."""
        return self.info.leaf

    @property
    def axis(self) -> int:
        """The axis of the activation, as the module returned it, that holds the features."""
        return self.info.axis

    @property
    def d(self) -> int:
        """The number of features."""
        return self.accumulator.d

    @property
    def N(self) -> int:
        """The number of samples."""
        return self.accumulator.samples

    @property
    def kets(self) -> int:
        """The number of activation vectors (kets): positions of samples."""
        return self.accumulator.kets

    @property
    def N_eff(self) -> float:
        """Kish's effective number of samples, (Σ w)²/Σ w²: N where all samples weigh alike, few where few decide.

        A sample's weight is that of all its vectors: their number, or with "ensemble" the sum of ‖a‖².
        """
        return self.accumulator.effective_samples

    @property
    def few_samples(self) -> bool:
        """Whether independent samples are few for the dimensions in use: N_eff below four times the effective rank."""
        used = self.estimate("effective_rank").plain
        return math.isfinite(used) and self.N_eff < FEW_SAMPLES * used

    @property
    def rank_share(self) -> Estimate:
        """The effective rank ÷ d: the share of its dimensions that it uses, which layers of any width compare by.

        >>> import torch, ketwork as kw
        >>> kw.study(torch.nn.Identity(), torch.eye(4)[torch.arange(400) % 2])[0].rank_share.plain
        0.5
        """
        rank = self.estimate("effective_rank") / self.d
        return Estimate(rank.value, rank.stderr, rank.bounds, plain=rank.plain)

    @property
    def dead_neurons(self) -> tuple[int, ...]:
        """The features that are exactly 0 on every vector, counted from 0: those that `dead` is the share of.

        >>> import torch, ketwork as kw
        >>> kw.study(torch.nn.ReLU(), torch.tensor([[1.0, -2.0, 3.0], [2.0, -1.0, 0.5]]))[0].dead_neurons
        (1,)
        """
        return tuple((self.accumulator.moment.diagonal() == 0).nonzero()[:, 0].tolist())

    @property
    def positions_per_sample(self) -> float:
        """Activation vectors a sample, zero vectors among them: 1 where the layer has no positions.

        Layers of which this differs describe different things, as the pixels of an image and the image.
        """
        accumulator = self.accumulator
        return (accumulator.kets + accumulator.zeros) / accumulator.samples if accumulator.samples else 0.0

    @property
    def sketch(self) -> int | None:
        """The rank ℓ of the sketch that stands for the layer's moment, None where that is exact."""
        sketch = self.accumulator.moment.sketch
        return sketch.rank if sketch is not None else None

    @property
    def sketch_error(self) -> float:
        """The most by which what the sketch keeps of ρ falls short of ρ in any direction (certified); 0 where exact."""
        return LayerState(self.accumulator, self.normalize, self.center).slack

    @cached_property
    def leading(self) -> LeadingStates:
        """The spectrum of the layer's state, and its leading eigenstates: 64, or those that a small file has.

        Cost O(d³) where the state has not been decomposed.
        """
        kept = self.accumulator.moment.leading
        return leading_states(self.state()) if kept is None else kept

    @cached_property
    def plane(self) -> LeadingPlane | None:
        """The layer in the plane of its two leading eigenstates, as its page shows it; None where there are not two."""
        if not self.leading.held:
            return None
        mean = self.state().mean
        return leading_plane(self.leading, self.accumulator, self.normalize, mean, self.labels)

    def eigenstates(self, rank: int, center: bool | None = None) -> Ket:
        """So many leading eigenstates of the layer's state, centred or not (None: as it was studied), (rank, d).

        Those of a small file are rounded to float32. Cost O(d³) of other records.

        Raises:
            ValueError: the layer has no state, or was saved without those states.

        >>> import torch, ketwork as kw
        >>> study = kw.study(torch.nn.Identity(), torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0]]))
        >>> study[0].eigenstates(1).probabilities().round(decimals=3), study[0].spectrum().round(decimals=3)
        (tensor([[1., 0.]], dtype=torch.float64), tensor([0.6670, 0.3330], dtype=torch.float64))
        """
        center = self.center if center is None else center
        kept = self.accumulator.moment.leading
        if kept is not None:
            return Ket(kept.first(rank, center))
        return self.density_of(center).eigenstates(rank)[1]

    def spectrum(self, center: bool | None = None) -> Tensor:
        """The eigenvalues of the layer's state, the largest first, centred or not (None: as it was studied).

        Raises:
            ValueError: the layer has no state, or was saved without the other of the centred and uncentred ones.
        """
        center = self.center if center is None else center
        kept = self.accumulator.moment.leading
        if kept is None:
            return self.density_of(center).spectrum()
        kept.first(0, center)
        return kept.values

    @cached_property
    def density(self) -> Density:
        """The layer's state ρ, in float64, with eigenstates, measures and measurements of its own.

        Where a memory budget made the moment a `sketch`, the state of what that keeps, which `sketch_error` bounds; the
        layer's own numbers have intervals then, this state's measures have none.

        Raises:
            ValueError: the layer has no state, since each activation was a zero vector (or all equal, centred).
        """
        return self.density_of(self.center)

    def density_of(self, center: bool) -> Density:
        """The layer's state, centred or not; see `density`.

        Raises:
            ValueError: it has none.
        """
        rho = LayerState(self.accumulator, self.normalize, center).density
        if rho is None:
            raise ValueError(
                f"Layer {self.name!r} has no state: its activations are all zero, or all equal and centred."
            )
        return rho

    def state(self) -> LayerState:
        """What the layer's measures are computed from: spectrum, eigenstates and bounds, decomposed when first used."""
        return LayerState(self.accumulator, self.normalize, self.center)

    def estimate(self, measure: str) -> Estimate:
        """A measure by name; one that a record of an older version lacks is computed, from a full file."""
        if measure not in self.estimates:
            declared = MEASURES[measure]
            none = declared.needs != "layer"
            if not self.finished or not self.computable:
                return Estimate(unit=declared.unit)
            self.estimates[measure] = Estimate(unit=declared.unit) if none else declared(self.state())
        return self.estimates[measure]

    @property
    def computable(self) -> bool:
        """Whether more numbers can be computed: not from a file with the leading states alone."""
        return self.accumulator.moment.leading is None

    @property
    def knowledge(self) -> DecodedLabels | None:
        """`labels`, under its name of version 0.1; warns."""
        moved("`Layer.knowledge` is now called `labels`.")
        return self.labels

    @property
    def statistics(self) -> LayerAccumulator:
        """`accumulator`, under its name of version 0.1; warns."""
        moved("`Layer.statistics` is now called `accumulator`.")
        return self.accumulator

    @property
    def all_estimates(self) -> dict[str, Estimate]:
        """`estimates`, under its name of version 0.1; warns."""
        moved("`Layer.all_estimates` is now called `estimates`.")
        return self.estimates

    def stored(self, complete: bool = True) -> StoredLayer:
        """The layer for a file; not `complete` without its accumulator and the names of labels."""
        decoding = None if self.labels is None else self.labels.decoding
        names = list(self.labels.names) if self.labels is not None and complete else []
        kept = self.accumulator if complete else None
        plain = {name: e.plain for name, e in self.estimates.items() if e.corrected}
        numbers = (self.estimates, decoding, kept, names, plain)
        return StoredLayer(self.normalize, self.center, *numbers, decisive=self.decisive)

    @classmethod
    def restored(cls, stored: StoredLayer, accumulator: LayerAccumulator, names: tuple[Any, ...]) -> Layer:
        """The layer that `stored` gave."""
        estimates = {
            name: Estimate(e.value, e.stderr, e.bounds, MEASURES[name].unit, plain=stored.plain.get(name))
            for name, e in stored.estimates.items()
            if name in MEASURES
        }
        labels = None
        moments = accumulator.labelled if stored.counts is None else stored.counts
        if stored.decoding is not None and moments is not None:
            decoded = {name: e for name, e in estimates.items() if MEASURES[name].needs != "layer"}
            labels = DecodedLabels(names, moments, decoded, stored.decoding)
        layer = cls(accumulator, stored.normalize, stored.center, estimates, labels, stored.decisive)
        if accumulator.moment.leading is not None:
            layer.__dict__["plane"] = stored.plane
        return layer

    def save(self, path: str | Path) -> None:
        """Writes the layer, its state included, to one safetensors file; replaces the file in one step."""
        write(path, "layer", SCHEMA, self.stored())

    @classmethod
    def load(cls, path: str | Path) -> Layer:
        """Reads a layer that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a layer, damaged, or written by a newer ketwork.
        """
        stored = read(StoredLayer, path, "layer", SCHEMA)
        if stored.accumulator is None:
            raise ValueError(f"Argument `path` must be a saved layer, but {path} lacks its accumulator.")
        return cls.restored(stored, stored.accumulator, tuple(stored.names))

    def __repr__(self) -> str:
        call = f", call {self.call}" if self.call else ""
        numbers = f"S = {self.estimate('entropy')}, effective rank {self.estimate('effective_rank')}"
        return f"Layer({self.name!r}{call}, {self.kind}, d={self.d}, N={self.N}: {numbers})"

    def _repr_html_(self) -> str:
        return in_html(f"{self.name}: {self.kind}, d = {self.d}, N = {self.N}", self.estimates)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Estimate: ...


def _attribute(measure: Measure) -> property:
    def value(self: Layer) -> Estimate:
        if measure.needs != "layer" and measure.name not in self.estimates:
            raise AttributeError(f"Layer has no {measure.name!r}: it was studied without such labels.")
        return self.estimate(measure.name)

    value.__doc__ = measure.sentence
    value.__annotations__["return"] = Estimate
    return property(value)


for _measure in MEASURES.values():
    setattr(Layer, _measure.name, _attribute(_measure))
