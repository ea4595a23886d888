"""The frame of scored samples: what its columns mean, and how they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

SCORE_DEFINITIONS: dict[str, str] = {
    "score": "how unlike the studied data the sample is: the larger, the more",
    "p_value": "(1 + the number of calibration samples whose score is as large) / (their number + 1): of a sample of "
    "the studied kind it is at most α with probability at most α",
    "nearest_class": "the class whose mean is nearest by Mahalanobis distance, at the last layer that has class means",
    "layer": "the layer whose own terms are the least likely among calibration samples",
    "alarm": "whether p_value ≤ alpha",
}
"""What each column of `Detector.score` means."""


def scores_frame(
    scores: Tensor,
    p_values: Tensor,
    nearest: Tensor | None,
    layers: Tensor,
    names: Sequence[Any],
    labels: Sequence[str],
    alpha: float | None,
    surprisal: Tensor | None = None,
) -> pd.DataFrame:
    """One row a sample, in the order of the data; `surprisal` (n, layers) adds a column a layer.

    `nearest` (n,) are codes of `names`, `layers` (n,) places in `labels`; −1 stands for none.
    """
    columns: dict[str, Any] = {"score": scores.numpy(), "p_value": p_values.numpy()}
    if nearest is not None:
        columns["nearest_class"] = _named(nearest, names)
    columns["layer"] = _named(layers, labels)
    if alpha is not None:
        columns["alarm"] = (p_values <= alpha).numpy() | p_values.isnan().numpy()
    frame = pd.DataFrame(columns, index=pd.RangeIndex(len(scores), name="sample"))
    if surprisal is not None:
        wide = pd.DataFrame(
            surprisal.numpy(), index=frame.index, columns=[f"surprisal:{label}" for label in labels]
        )
        frame = pd.concat([frame, wide], axis=1)
    return frame


def empty_to(parts: Sequence[Tensor], width: int) -> Tensor:
    """The parts one after the other, (n, width), also where there is none."""
    return torch.cat([torch.zeros(0, width, dtype=torch.float64), *parts])


def _named(codes: Tensor, names: Sequence[Any]) -> np.ndarray:
    values = np.array([*names, None], dtype=object)
    return values[codes.numpy()]
