"""What changed between two models: the layers of one name side by side, and their weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ketwork.networks.comparison.weights import WeightChange, relative
from ketwork.networks.measures import PAIR_MEASURES

_CALL = re.compile(r"#\d+$")
WEIGHT_COLUMNS = ("weight_change", "weight", "weight_rank", "weight_effective_rank", "reason")


def changes(comparison: Any, by: str | None = None) -> pd.DataFrame:
    """The layers of one name side by side; see `Comparison.changes`."""
    if comparison.itself:
        raise ValueError(
            "`changes` needs a comparison of two models, but this one is of a model with itself. Compare with "
            "`other=` (`ketwork compare MODEL OTHER`)."
        )
    known = [*comparison.measures, "weight_change"]
    if by is not None and by not in known:
        raise ValueError(f"Argument `by` must be one of {', '.join(known)} or None, but is {by!r}.")
    rows = [_row(comparison, i, j) for i, j in shared(comparison)]
    measured = {name: None for measure in comparison.measures for name in (measure, f"{measure}_stderr")}
    columns = ["layer", "kind", "d", *measured, *WEIGHT_COLUMNS]
    frame = pd.DataFrame(rows, columns=columns).set_index("layer")
    without = [name for name in measured if name.endswith("_stderr") and frame[name].isna().all()]
    frame = frame.drop(columns=without).astype({"weight_rank": "Int64"})
    if by is None:
        return frame
    similar = by in comparison.measures and PAIR_MEASURES[by].distance_of is None
    return frame.sort_values(by, ascending=similar, kind="stable", na_position="last")


def shared(comparison: Any) -> list[tuple[int, int]]:
    """The places of the layers that both models have by name, in order of depth."""
    others = {layer.name: j for j, layer in enumerate(comparison.columns)}
    return [(i, others[layer.name]) for i, layer in enumerate(comparison.rows) if layer.name in others]


def weights_under(path: str, weights: Sequence[WeightChange]) -> list[WeightChange]:
    """The weights of a layer and of all modules inside it; of "" those of the network."""
    return [each for each in weights if not path or each.name.startswith(f"{path}.")]


def _row(comparison: Any, i: int, j: int) -> dict[str, Any]:
    layer = comparison.rows[i]
    numbers: dict[str, Any] = {"layer": layer.name, "kind": layer.kind, "d": layer.d}
    for measure in comparison.measures:
        estimate = comparison.estimate(measure, i, j)
        numbers |= {measure: estimate.value, f"{measure}_stderr": estimate.stderr}
    return numbers | _weights(layer.name, comparison.weights)


def _weights(name: str, every: Sequence[WeightChange]) -> dict[str, Any]:
    """The change of a layer's weights; none where some of them cannot be compared, for the reason of the first."""
    weights = weights_under(_CALL.sub("", name), every)
    reason = next((f"{each.name}: {each.reason}" for each in weights if each.reason is not None), None)
    if not every:
        reason = "the weights were not compared"
    elif not weights:
        reason = "it has no weights of its own"
    if reason is not None:
        return dict(zip(WEIGHT_COLUMNS, (math.nan, None, None, math.nan, reason), strict=True))
    matrices = [each for each in weights if each.rank is not None]
    most = max(matrices, key=lambda each: each.change or 0.0, default=None)
    if most is None:
        return dict(zip(WEIGHT_COLUMNS, (relative(weights), None, None, math.nan, None), strict=True))
    effective = math.nan if most.effective_rank is None else most.effective_rank
    heaviest = most.name if most.change else None
    return dict(zip(WEIGHT_COLUMNS, (relative(weights), heaviest, most.rank, effective, None), strict=True))
