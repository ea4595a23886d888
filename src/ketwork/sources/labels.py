"""Labels as numbers: names become codes, numbers stay what they are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ketwork.sources.errors import SourceError


def encode_labels(values: np.ndarray, name: str, samples: int) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as an array of numbers, and the names that its codes stand for (None where they were numbers).

    Strings become integer codes in the sorted order of the names, booleans 0 and 1, integers stay; floating
    labels stay too, as targets of a regression. An (N, 1) column becomes (N,).

    >>> encode_labels(np.array(["spam", "ham", "spam"]), "kind", 3)
    (array([1, 0, 1]), ('ham', 'spam'))
    """
    values = np.asarray(values)
    if values.ndim == 0 or len(values) != samples:
        count = "one value" if values.ndim == 0 else f"{len(values)} values"
        raise SourceError(
            f"Argument `label` must name one label a sample, but {name!r} has {count} for {samples} samples."
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    missing = np.flatnonzero(pd.isna(values).reshape(samples, -1).any(axis=1))
    if len(missing):
        raise SourceError(
            f"Argument `label` must name labels without gaps, but {name!r} is missing in {len(missing)} of "
            f"{samples} "
            f"rows (first: row {missing[0]}; empty cells and NA, NaN, None, null count as missing). Drop or "
            "name them."
        )
    kind = values.dtype.kind
    if kind in "iu":
        return values.astype(np.int64), None
    if kind == "b":
        return values.astype(np.int64), None
    if kind == "f":
        return values, None
    if kind == "S":
        values = np.char.decode(values)
    if kind in "OUST" and values.ndim == 1 and all(isinstance(value, str | bool | int) for value in values):
        names, codes = np.unique(values.astype(str), return_inverse=True)
        return codes.astype(np.int64), tuple(str(name) for name in names)
    raise SourceError(
        f"Argument `label` must name strings or real numbers, but {name!r} is of dtype {values.dtype} with "
        "shape "
        f"{values.shape}."
    )
