"""From a module's call to rows of features: which modules, which axes, which batches, and the hooks that see them.

May import `quantum` and `records`. Others take `Activation` (values and their `LayerInfo`), which `capture` hands over.

- Axes: `experiment` (which counts samples; `observation`, `row_fingerprints`, `findings`), `feature_axis` (which holds
  features), `masks`, `axes` (what is known before), `layout` (what came out); `reading` has the user's options
- Batches: `batching`, `samples` (how many a batch has), `draws`, `labels`, `integers`, `failures` (in which layer)
- Positions: `positions` (which the user chose), `sinks` (which are sinks)
- Layers: `selectors` (which modules; `decoders`, `heads`, `experts`), `parts` (of a transformer), `outputs` (where in
  an output), `spots` (where of a module), `info`, `naming`, `wrappers`, `adapters`
- Files: `shard_files` (formats), `shard_samples` (each sample's part), `stored` (a `source` without a network)
- Passes: `generation` (token by token); `hooks`, with `captures` and `interventions` on them; `encoding` to kets
  and back
- What a pass leaves as it was: `neutrality` (PyTorch's settings and draws), `buffers`, `placement` (devices),
  `parallel` (sharded networks), `repeats` (checkpointed calls)
"""

from ketwork.networks.activations.adapters import adapts, base_of, switch, weights_of
from ketwork.networks.activations.batching import Batch, EmptyDataError, Forward, batches
from ketwork.networks.activations.buffers import kept_buffers
from ketwork.networks.activations.captures import NEVER, Capture, RefusedError, Seen, capture
from ketwork.networks.activations.draws import drawn, drawn_alike
from ketwork.networks.activations.encoding import decode, encode, pieces, unit
from ketwork.networks.activations.experiment import Trial
from ketwork.networks.activations.generation import Generate, generate
from ketwork.networks.activations.heads import Heads, heads_of
from ketwork.networks.activations.info import POOLED, Activation, Key, LayerInfo
from ketwork.networks.activations.integers import IntegersRefusedError
from ketwork.networks.activations.interventions import Site, intervene
from ketwork.networks.activations.labels import MOST_LABELS, NEXT_TOKENS, Labels
from ketwork.networks.activations.layout import Layout
from ketwork.networks.activations.linear_range import LinearRange
from ketwork.networks.activations.masks import IGNORED, Mask, PositionMask
from ketwork.networks.activations.neutrality import callers_precision, full_precision, neutral
from ketwork.networks.activations.outputs import activations, leaves, map_tensors, tensors
from ketwork.networks.activations.parallel import is_sharded
from ketwork.networks.activations.parts import PARTS, Part, parts_of
from ketwork.networks.activations.placement import (
    device_of,
    dtype_of,
    is_placed,
    numbers,
    placed,
    without_hooks,
)
from ketwork.networks.activations.positions import ChosenPositions, PositionChoice
from ketwork.networks.activations.reading import Reading
from ketwork.networks.activations.repeats import MOST_VISITS
from ketwork.networks.activations.samples import carriers, take
from ketwork.networks.activations.selectors import Layers, SelectorError, decoder, modules_of, select
from ketwork.networks.activations.shard_files import Shard, shards_of
from ketwork.networks.activations.sinks import MULTIPLE, are_sinks
from ketwork.networks.activations.source import Source
from ketwork.networks.activations.spots import spot_of
from ketwork.networks.activations.stored import StoredActivations, StoredBatch
from ketwork.networks.activations.texts import tokenized
from ketwork.networks.activations.wrappers import eager, evaluating, needs_labels, unwrapped

__all__ = [
    "IGNORED",
    "MOST_LABELS",
    "MOST_VISITS",
    "MULTIPLE",
    "NEVER",
    "NEXT_TOKENS",
    "PARTS",
    "POOLED",
    "Activation",
    "Batch",
    "Capture",
    "ChosenPositions",
    "EmptyDataError",
    "Forward",
    "Generate",
    "Heads",
    "IntegersRefusedError",
    "Key",
    "Labels",
    "LayerInfo",
    "Layers",
    "Layout",
    "LinearRange",
    "Mask",
    "Part",
    "PositionChoice",
    "PositionMask",
    "Reading",
    "RefusedError",
    "Seen",
    "SelectorError",
    "Shard",
    "Site",
    "Source",
    "StoredActivations",
    "StoredBatch",
    "Trial",
    "activations",
    "adapts",
    "are_sinks",
    "base_of",
    "batches",
    "callers_precision",
    "capture",
    "carriers",
    "decode",
    "decoder",
    "device_of",
    "drawn",
    "drawn_alike",
    "dtype_of",
    "eager",
    "encode",
    "evaluating",
    "full_precision",
    "generate",
    "heads_of",
    "intervene",
    "is_placed",
    "is_sharded",
    "kept_buffers",
    "leaves",
    "map_tensors",
    "modules_of",
    "needs_labels",
    "neutral",
    "numbers",
    "parts_of",
    "pieces",
    "placed",
    "select",
    "shards_of",
    "spot_of",
    "switch",
    "take",
    "tensors",
    "tokenized",
    "unit",
    "unwrapped",
    "weights_of",
    "without_hooks",
]
