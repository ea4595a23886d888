"""From a module's call to rows of features: which modules, which axes, which batches, and the hooks that see them.

May import `quantum` and `records`. Others take `Activation` (values and their `LayerInfo`), which `capture` hands over.
"""

from ketwork.networks.activations.batching import Batch, EmptyDataError, Forward, Mask, batches
from ketwork.networks.activations.captures import NEVER, Capture, Seen, capture
from ketwork.networks.activations.draws import drawn, drawn_alike
from ketwork.networks.activations.encoding import decode, encode, unit
from ketwork.networks.activations.info import POOLED, Activation, Key, LayerInfo
from ketwork.networks.activations.interventions import Site, intervene
from ketwork.networks.activations.labels import IGNORED, MOST_LABELS, Labels
from ketwork.networks.activations.outputs import activations, leaves, map_tensors, tensors
from ketwork.networks.activations.reading import Reading
from ketwork.networks.activations.selectors import Layers, SelectorError, select
from ketwork.networks.activations.wrappers import device_of, dtype_of, eager, unwrapped

__all__ = [
    "IGNORED",
    "MOST_LABELS",
    "NEVER",
    "POOLED",
    "Activation",
    "Batch",
    "Capture",
    "EmptyDataError",
    "Forward",
    "Key",
    "Labels",
    "LayerInfo",
    "Layers",
    "Mask",
    "Reading",
    "Seen",
    "SelectorError",
    "Site",
    "activations",
    "batches",
    "capture",
    "decode",
    "device_of",
    "drawn",
    "drawn_alike",
    "dtype_of",
    "eager",
    "encode",
    "intervene",
    "leaves",
    "map_tensors",
    "select",
    "tensors",
    "unit",
    "unwrapped",
]
