"""Sums that add up: second moments, sketches, reservoirs, moments by label and of pairs of layers.

May import `activations`, `quantum`, `records`. Others take `LayerAccumulator`, all that is kept of one layer.

- Of a batch in a hook: `batch_part`, with its `batch_keys` and `batch_labels`; `device_numbers` and `entropy_solver`
  once the network has run
- Of a layer: `accumulator`, with `moment` (`grams`, or a sketch, `frequent_directions`), `reservoir`,
  `sample_weights` (N_eff), `entanglements`, and sums of measures' own (`sums`, `sample_ratio`);
  `leading_states` in a small file
- By label: `labelled_moments`, `class_moments`; of pairs of layers: `pair_moments`, `cross_moments`, `kept_samples`,
  `pair_budget`
- Rows of a batch: `positions` (which exist), `pooling` (one a sample, or a position)
"""

from ketwork.networks.moments.accumulator import (
    NORMALIZATIONS,
    Keep,
    LayerAccumulator,
    Normalize,
)
from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.batch_labels import Labelled
from ketwork.networks.moments.batch_part import BatchPart, NonFiniteActivationError, read_parts
from ketwork.networks.moments.class_moments import MOST_BYTES, ClassMoments
from ketwork.networks.moments.cross_moments import CrossMoments
from ketwork.networks.moments.device_numbers import read_numbers
from ketwork.networks.moments.entanglements import Entanglements
from ketwork.networks.moments.entropy_solver import EntropySolver
from ketwork.networks.moments.kept_samples import KeptSamples, first_samples
from ketwork.networks.moments.key_draws import sample_keys
from ketwork.networks.moments.labelled_moments import HELD_SHARE, LabelledMoments, Limits, Rows, Sums
from ketwork.networks.moments.leading_states import LeadingStates, MissingStatesError, missing_states
from ketwork.networks.moments.moment import Moment
from ketwork.networks.moments.pair_budget import least_bytes
from ketwork.networks.moments.pair_moments import MEMORY, PairMoments
from ketwork.networks.moments.pooling import UNITS, pooled, sample_owners, sample_rows
from ketwork.networks.moments.positions import Positions
from ketwork.networks.moments.reservoir import HEAVIEST, SAMPLES, Reservoir, kets_each
from ketwork.networks.moments.sample_ratio import SampleRatio
from ketwork.networks.moments.sample_weights import SampleWeights
from ketwork.networks.moments.sums import LayerSum, Vectors

__all__ = [
    "HEAVIEST",
    "HELD_SHARE",
    "MEMORY",
    "MOST_BYTES",
    "NORMALIZATIONS",
    "SAMPLES",
    "UNITS",
    "BatchKeys",
    "BatchPart",
    "ClassMoments",
    "CrossMoments",
    "Entanglements",
    "EntropySolver",
    "Keep",
    "KeptSamples",
    "Labelled",
    "LabelledMoments",
    "LayerAccumulator",
    "LayerSum",
    "LeadingStates",
    "Limits",
    "MissingStatesError",
    "Moment",
    "NonFiniteActivationError",
    "Normalize",
    "PairMoments",
    "Positions",
    "Reservoir",
    "Rows",
    "SampleRatio",
    "SampleWeights",
    "Sums",
    "Vectors",
    "first_samples",
    "kets_each",
    "least_bytes",
    "missing_states",
    "pooled",
    "read_numbers",
    "read_parts",
    "sample_keys",
    "sample_owners",
    "sample_rows",
]
