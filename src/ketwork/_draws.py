"""Which samples are taken of data that have a length: as many of each label where there are labels, else at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ketwork.quantum import Seed, generator_from


def choose(
    n: int, most: int, labels: Sequence[Any] | np.ndarray | None, seed: Seed
) -> tuple[np.ndarray, str]:
    """The places of `most` of n samples, in their order, and in words which they are.

    Labels that are classes share the places evenly; one that has fewer samples than its share leaves the rest to the
    others. Without labels, with numbers for labels, or with more labels than places, the draw is uniform.

    >>> places, words = choose(6, 4, ["a", "a", "a", "a", "b", "c"], 0)
    >>> words, len(places)
    ('4 of 6 samples, 1 to 2 of each of 3 labels', 4)
    """
    order = torch.randperm(n, generator=generator_from(seed)).numpy()
    codes = None if labels is None else _codes(np.asarray(labels))
    if codes is None or not 1 < codes.max() + 1 <= most:
        return np.sort(order[:most]), f"{most:,} of {n:,} samples, drawn at random"
    counts = np.bincount(codes)
    taken = _shares(counts, most)
    shuffled = codes[order]
    places = np.concatenate([order[shuffled == code][:share] for code, share in enumerate(taken)])
    low, high = int(taken.min()), int(taken.max())
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return np.sort(places), f"{most:,} of {n:,} samples, {each} of each of {len(counts):,} labels"


def _codes(labels: np.ndarray) -> np.ndarray | None:
    """The class of each sample, None where labels are numbers, of positions, or partly missing."""
    if labels.ndim != 1 or labels.dtype.kind == "f":
        return None
    codes, _ = pd.factorize(labels)
    return None if len(codes) == 0 or codes.min() < 0 else codes


def _shares(counts: np.ndarray, most: int) -> np.ndarray:
    """How many of each label: the smallest ones whole while they are below an even share of what is left."""
    shares = np.zeros_like(counts)
    left = most
    for i, code in enumerate(np.argsort(counts, kind="stable")):
        shares[code] = min(counts[code], left // (len(counts) - i))
        left -= shares[code]
    return shares
