"""Codes by which it is seen where each of many units comes to, in a few runs, and where several come to one place."""

from __future__ import annotations

from itertools import combinations, islice
from math import comb

import torch
from torch import Tensor

MIXED = "its units are mixed before other layers read them"


class NotSeparateError(Exception):
    """The units do not come to other layers each by itself: why, in words."""


def codes_of(count: int) -> Tensor:
    """Codes (bits, count) that tell each of so many units from the others, and one from several.

    Each has half of its bits set, so that what several units come to has more.
    """
    bits = 2
    while comb(bits, bits // 2) < count:
        bits += 1
    chosen = torch.tensor(list(islice(combinations(range(bits), bits // 2), count)))
    return torch.zeros(count, bits, dtype=torch.bool).scatter_(1, chosen, True).T


def places_of(came: Tensor, codes: Tensor) -> Tensor:
    """Each unit's places (units, b), from where the units of `codes` came to."""
    powers = 2 ** torch.arange(len(codes))[:, None]
    names, order = (codes * powers).sum(0).sort()
    places = came.any(0).nonzero()[:, 0]
    result = (came[:, places] * powers).sum(0)
    unit = torch.searchsorted(names, result).clamp(max=len(names) - 1)
    if bool((names[unit] != result).any()):  # a place that several units come to
        raise NotSeparateError(MIXED)
    unit = order[unit]
    counts = torch.bincount(unit, minlength=len(names))
    if bool((counts != counts[0]).any()) or not int(counts[0]):
        raise NotSeparateError(MIXED)
    return places[unit.argsort(stable=True)].reshape(len(names), -1)
