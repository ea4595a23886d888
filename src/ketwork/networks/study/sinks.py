"""Which positions and dimensions of a study's layers are massive, and what they hold: a table, and a warning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ketwork.networks.activations import MULTIPLE
from ketwork.networks.measures import SinkCounts, massive_dimensions
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.warnings import listed

_MOST = 8  # dimensions that are named
_NOTED = 0.05  # of ρ
_FEW = 0.2  # of the vectors: where more are so long, lengths vary as those of pixels do


def sink_table(layers: Sequence[Layer]) -> pd.DataFrame:
    """One row for each layer that has sinks or massive dimensions; see `Study.sinks`."""
    rows = []
    for layer in layers:
        counts = layer.accumulator.sums.get("sinks")
        sinks = int(counts.part) if isinstance(counts, SinkCounts) and layer.info.positions else 0
        state = layer.state()
        which = massive_dimensions(state).nonzero()[:, 0].tolist() if state.exists else []
        if not sinks and not which:
            continue
        largest = sorted(which, key=lambda j: -float(state.populations[j]))[:_MOST]
        rows.append(
            {
                "layer": layer.name,
                "call": layer.call,
                "sinks": sinks,
                "per_sample": sinks / max(layer.N, 1),
                "places": counts.words if isinstance(counts, SinkCounts) and sinks else "",
                "share": share(layer),
                "vectors": layer.estimate("sinks").value,
                "weight": layer.estimate("sink_weight").value,
                "dimensions": largest,
                "dimensions_share": layer.estimate("massive").value,
            }
        )
    columns = ["layer", "call", "sinks", "per_sample", "places", "share", "vectors", "weight"]
    return pd.DataFrame(rows, columns=[*columns, "dimensions", "dimensions_share"])


def share(layer: Layer) -> float:
    """The share of a layer's state that sinks hold, before any mean is subtracted; NaN of one without positions."""
    return layer.estimate("sink_weight" if layer.normalize == "ensemble" else "sinks").value


def sink_warnings(layers: Sequence[Layer]) -> list[str]:
    """Where sinks hold much of the state."""
    shares = {layer: share(layer) for layer in layers}
    noted = [
        layer
        for layer, each in shares.items()
        if math.isfinite(each) and each > _NOTED and layer.estimate("sinks") < _FEW
    ]
    if not noted:
        return []
    worst = max(noted, key=shares.__getitem__)
    counts = worst.accumulator.sums["sinks"]
    at = counts.words if isinstance(counts, SinkCounts) else ""
    return [
        f"Sinks at {listed([layer.name for layer in noted])}: positions of more than {MULTIPLE:.0f} times the median "
        f"‖a‖² of their sample hold up to {shares[worst]:.1%} of ρ (at {worst.name}; places in samples, and "
        f'how often: {at}). `positions="no-sinks"` skips them, `study.sinks()` lists them.'
    ]
