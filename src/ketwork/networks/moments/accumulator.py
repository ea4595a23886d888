"""`LayerAccumulator`: all that is kept of one layer, in sums and bounded samples that add up.

One batch is reduced inside the hook (`from_batch`); `+=` adds batches, processes and studies. Files, checkpoints and
processes move accumulators, nothing else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from ketwork.networks.activations import Activation, LayerInfo, unit
from ketwork.networks.moments.entanglements import Entanglements
from ketwork.networks.moments.labelled_moments import LabelledMoments, Limits
from ketwork.networks.moments.moment import Moment
from ketwork.networks.moments.positions import Positions
from ketwork.networks.moments.reservoir import HEAVIEST, SAMPLES, Reservoir
from ketwork.networks.moments.sample_weights import SampleWeights
from ketwork.networks.moments.sums import LayerSum, Vectors
from ketwork.records import Count, Malformed, Unknown

Normalize = Literal["state", "ensemble"]
NORMALIZATIONS = get_args(Normalize)


class NonFiniteActivationError(ValueError):
    """A layer put out NaN or infinite values; `samples` are their indices in the batch."""

    def __init__(self, samples: list[int]) -> None:
        super().__init__(samples)
        self.samples = samples


@dataclass(frozen=True)
class Keep:
    """What an accumulator keeps of the vectors that it is given.

    `normalize` is one of `NORMALIZATIONS`; `skip_bad` leaves out samples with NaN or infinite values; the moment
    becomes a sketch of `rank` directions where that is given; the reservoir has place for `samples`; `limits` are of
    what labels need. `sums` are the measures' own sums. With `center` there is what pairs of centred samples need.
    """

    normalize: Normalize = "state"
    skip_bad: bool = False
    rank: int | None = None
    samples: int = SAMPLES
    limits: Limits | None = None
    sums: Mapping[str, type[LayerSum]] = field(default_factory=dict)
    center: bool = False


@dataclass(frozen=True)
class Labelled:
    """The labels of a batch: `targets` (N,), (N, T) or (N, m), the place `start` of its first sample in the data.

    `positions` says that each position has a label.
    """

    targets: Tensor
    start: int
    positions: bool


@dataclass
class LayerAccumulator:
    """Sums of one layer over N samples.

    `samples` counts the samples that entered, `zeros` the zero vectors skipped, `dropped` the samples dropped for NaN
    or infinite values, `norms` is Σ‖a‖ over the vectors. `labelled` is None without labels, `sums` holds the measures'
    own sums by name. `sample_weights` and, of a layer with positions, `entanglements` are None in older files;
    `heaviest` has the samples of the largest weight where kets weigh by their squared norm.
    """

    info: LayerInfo
    samples: Count
    zeros: Count
    dropped: Count
    norms: float
    moment: Moment
    reservoir: Reservoir
    labelled: LabelledMoments | None = None
    sums: dict[str, LayerSum] = field(default_factory=dict)
    sample_weights: SampleWeights | None = None
    entanglements: Entanglements | None = None
    heaviest: Reservoir | None = None

    @classmethod
    def from_batch(
        cls,
        activation: Activation,
        positions: Positions,
        keys: Tensor,
        keep: Keep,
        labels: Labelled | None = None,
        before: LayerAccumulator | None = None,
    ) -> Self:
        """The accumulator of one batch: the positions that exist, a random key for each sample (N,).

        Of `before`, the accumulator that it will be added to, only samples that would stay are kept. `labelled` is None
        where the layer does not have the positions that labels are of.

        Raises:
            NonFiniteActivationError: NaN or infinite values, unless they are to be skipped.
        """
        values, info = activation.values, activation.info
        rows = positions.rows(values)
        kets, norms = unit(rows)
        facts = [norms.sum(dtype=torch.float64), (norms == 0).sum(), (~norms.isfinite()).sum()]
        length, zeros, bad = torch.stack([fact.double() for fact in facts]).tolist()
        labelled = None
        if labels is not None:
            labelled = LabelledMoments.from_batch(
                values, positions.present, labels.targets, keys, labels.start, labels.positions, keep.limits
            )
        if bad:
            samples = positions.owners[~norms.isfinite()].unique()
            if not keep.skip_bad:
                raise NonFiniteActivationError(samples.tolist())
            good = torch.ones(len(values), dtype=torch.bool, device=values.device)
            good[samples] = False
            present = None if positions.present is None else positions.present[good]
            finite = replace(activation, values=values[good])
            left = Positions.of(finite.values, present)
            part = cls.from_batch(finite, left, keys[good.to(keys.device)], keep, None, before)
            part.dropped, part.labelled = len(samples), labelled
            return part
        vectors = Vectors(rows, positions.owners, norms)
        sums = {name: kind.from_vectors(vectors) for name, kind in keep.sums.items()}
        by_square = keep.normalize == "ensemble"
        lengths = positions.grid(norms)
        centred = (rows if by_square else kets) if keep.center else None
        sample_weights = SampleWeights.from_batch(lengths, positions, by_square, centred)
        if zeros:
            kets, norms = kets[norms > 0], norms[norms > 0]
            positions = Positions.of(values, lengths > 0)
        weights = lengths.double().square().sum(dim=1) if by_square else None
        worst = math.inf if before is None else before.reservoir.worst
        cut = None if before is None or before.entanglements is None else before.entanglements.cut
        heaviest = None
        if weights is not None:
            most = min(HEAVIEST, max(keep.samples // 4, 1))
            lightest = 0.0 if before is None else before.lightest
            heaviest = Reservoir.from_batch(
                values, positions, keys, most, weights, heaviest=True, below=-lightest
            )
        return cls(
            info,
            len(values),
            int(zeros),
            0,
            length,
            Moment.from_vectors(kets, norms.square() if by_square else None, keep.rank, activation.span),
            Reservoir.from_batch(values, positions, keys, keep.samples, weights, below=worst),
            labelled,
            sums,
            sample_weights,
            Entanglements.from_batch(values, positions, keys, cut) if info.positions else None,
            heaviest,
        )

    def __iadd__(self, other: LayerAccumulator) -> Self:
        if other.d != self.d:
            raise ValueError(
                f"Layer {self.info.name!r} has {self.d} features in one part and {other.d} in another."
            )
        self.samples += other.samples
        self.zeros += other.zeros
        self.dropped += other.dropped
        self.norms += other.norms
        self.moment += other.moment
        self.reservoir += other.reservoir
        if self.heaviest is None or other.heaviest is None:
            self.heaviest = None
        else:
            self.heaviest += other.heaviest
        if self.labelled is None or other.labelled is None:
            self.labelled = None  # the parts are the same samples at every layer, or there are none
        else:
            self.labelled += other.labelled
        self.sums = {name: self._added(name, other) for name in self.sums.keys() & other.sums.keys()}
        if self.sample_weights is None or other.sample_weights is None:
            self.sample_weights = None
        else:
            self.sample_weights += other.sample_weights
        if self.entanglements is None or other.entanglements is None:
            self.entanglements = None
        else:
            self.entanglements += other.entanglements
        return self

    def check(self) -> None:
        """All parts are of the same features."""
        if self.reservoir.kets.shape[2] != self.d:
            raise Malformed(f"moments of {self.d} features have samples of {self.reservoir.kets.shape[2]}")
        if self.heaviest is not None and (
            self.heaviest.kets.shape[2] != self.d
            or self.heaviest.weights is None
            or self.reservoir.weights is None
        ):
            raise Malformed(
                f"the heaviest samples must be of {self.d} features, and have their weights as all do"
            )
        if self.labelled is not None:
            d = self.labelled.sums.moments.d
            if d != self.d * (2 if self.labelled.complex else 1):
                raise Malformed(f"a layer of {self.d} features has labelled vectors of {d}")
        weights, entangled = self.sample_weights, self.entanglements
        if weights is not None and weights.weighted is not None and len(weights.weighted) != self.d:
            raise Malformed(f"a layer of {self.d} features has weighted sums of {len(weights.weighted)}")
        if entangled is not None and entangled.d != self.d:
            raise Malformed(f"a layer of {self.d} features has entanglements of {entangled.d}")
        # A sum of a measure that this version does not know is skipped.
        self.sums = {name: part for name, part in self.sums.items() if not isinstance(part, Unknown)}

    def copy(self) -> Self:
        """The same, sharing no tensor that adding changes."""
        return copy.deepcopy(self)

    @property
    def d(self) -> int:
        """The number of features."""
        return self.moment.d

    @property
    def kets(self) -> int:
        """The number of activation vectors (kets) that entered: positions of samples."""
        return self.moment.n

    @property
    def lightest(self) -> float:
        """A sample of a weight not above this would not be among the heaviest."""
        return -self.heaviest.worst if self.heaviest is not None else 0.0

    @property
    def effective_samples(self) -> float:
        """Kish's effective number of samples: (Σ w)²/Σ w² with w the weight of all of a sample's kets.

        Of a record of an older version, which lacks Σ w², the number of samples.
        """
        if self.sample_weights is None or not self.sample_weights.squares > 0:
            return float(self.samples)
        return self.moment.weight**2 / self.sample_weights.squares

    def _added(self, name: str, other: LayerAccumulator) -> LayerSum:
        part = self.sums[name]
        part += other.sums[name]
        return part
