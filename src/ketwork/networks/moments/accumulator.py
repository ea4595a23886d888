"""`LayerAccumulator`: all that is kept of one layer, in sums and bounded samples that add up.

One batch is reduced inside the hook (`batch_part`); `+=` adds batches, processes and studies. Files, checkpoints and
processes move accumulators, nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

from ketwork.networks.activations import LayerInfo
from ketwork.networks.moments.entanglements import Entanglements
from ketwork.networks.moments.labelled_moments import LabelledMoments, Limits
from ketwork.networks.moments.moment import Moment
from ketwork.networks.moments.reservoir import SAMPLES, Reservoir
from ketwork.networks.moments.sample_weights import SampleWeights
from ketwork.networks.moments.sums import LayerSum
from ketwork.records import Count, Malformed, Unknown

Normalize = Literal["state", "ensemble"]
NORMALIZATIONS = get_args(Normalize)


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

    def on_host(self) -> Self:
        """The same, with all on the host that decides which samples are kept."""
        for reservoir in filter(None, (self.reservoir, self.heaviest)):
            reservoir.keys = reservoir.keys.cpu()
        if self.entanglements is not None:
            for name in ("keys", "positions", "entropies"):
                setattr(self.entanglements, name, getattr(self.entanglements, name).cpu())
        return self

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
