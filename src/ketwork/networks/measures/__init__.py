"""Numbers of layers with standard errors and bounds, from moments.

One file is one family of measures: spectral, stable_rank, coherence, activity, sparsity, positions, sinks, lens,
attention, holevo, probes; and those of pairs of layers, similarity. A new family is a new file here, which is found
by itself (CONTRIBUTING.md has two examples). What they are computed from: `state` (decompositions), `correction`
(standard errors and bias of finite data; `deletion` of one sample, `sample` of kept vectors, `intervals`),
`nuclear_deletion`, `sketch_bounds`,
`label_state`, `readouts` (fitted), `scores` (of readouts), `overlaps` and `pairs` (of pairs).
May import `moments`, `activations`, `quantum`, `records`. Others take the registry (`MEASURES`, `Measure`) and what
measures are computed from (`LayerState`, `LabelState`).
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ketwork.networks.measures.attention import PATTERNS
from ketwork.networks.measures.bloch import LeadingPlane, leading_plane
from ketwork.networks.measures.correction import DECISIVE, decisive_share
from ketwork.networks.measures.decoded import DecodedLabels, Decoding, by_label
from ketwork.networks.measures.label_counts import LabelCounts
from ketwork.networks.measures.label_state import LabelState
from ketwork.networks.measures.leading import MOST_STATES, leading_states
from ketwork.networks.measures.lens import LENS
from ketwork.networks.measures.overlaps import overlaps_of
from ketwork.networks.measures.pairs import PAIR_MEASURES, groups
from ketwork.networks.measures.predictions import CATEGORICAL, TEMPERATURES, Output, Predictions
from ketwork.networks.measures.quadrature import LEADING, WIDE
from ketwork.networks.measures.readouts import MOST_DIMENSIONS
from ketwork.networks.measures.registry import (
    MEASURES,
    Column,
    Measure,
    in_html,
    measure,
    measures_of,
    own_sums,
)
from ketwork.networks.measures.similarity import Effort, Similarities, measured, similarities
from ketwork.networks.measures.sinks import SinkCounts, massive_dimensions
from ketwork.networks.measures.spectral import KEPT, discarded
from ketwork.networks.measures.state import LayerState
from ketwork.networks.measures.threads import in_threads

if TYPE_CHECKING:
    from ketwork.networks.measures.probe_estimator import Probe, ProbeRegressor, probe

__all__ = [
    "CATEGORICAL",
    "DECISIVE",
    "KEPT",
    "LEADING",
    "LENS",
    "MEASURES",
    "MOST_DIMENSIONS",
    "MOST_STATES",
    "PAIR_MEASURES",
    "PATTERNS",
    "TEMPERATURES",
    "WIDE",
    "Column",
    "DecodedLabels",
    "Decoding",
    "Effort",
    "LabelCounts",
    "LabelState",
    "LayerState",
    "LeadingPlane",
    "Measure",
    "Output",
    "Predictions",
    "Probe",
    "ProbeRegressor",
    "Similarities",
    "SinkCounts",
    "by_label",
    "decisive_share",
    "discarded",
    "groups",
    "in_html",
    "in_threads",
    "leading_plane",
    "leading_states",
    "massive_dimensions",
    "measure",
    "measured",
    "measures_of",
    "overlaps_of",
    "own_sums",
    "probe",
    "similarities",
]

# Imports scikit-learn, which takes longer than all else: when it is first used.
_ESTIMATOR = "probe_estimator"
_ORDER = ("spectral", "coherence", "activity", "positions", "holevo", "probes")
"""The families in the order of their columns; others follow in the order of their names."""

for _name in (*_ORDER, *sorted(module.name for module in iter_modules(__path__))):
    if _name != _ESTIMATOR:
        import_module(f"{__name__}.{_name}")
MEASURES.arrange(_ORDER)


def __getattr__(name: str) -> Any:
    if name in ("Probe", "ProbeRegressor", "probe"):
        return getattr(import_module(f"{__name__}.{_ESTIMATOR}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
