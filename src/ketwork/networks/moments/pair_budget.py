"""What the moments of all pairs of layers take, and how narrow wide layers must become to fit a budget."""

from __future__ import annotations

from ketwork.networks.moments.kept_samples import SAMPLES

ITEM = 8
"""Bytes of a float64, in which the rows end and the moments are."""

_NARROWEST = 16  # a projection below this many dimensions says nothing
_SHARE = 16  # of the budget one part goes to the samples kept in full, at most


def least_bytes(widths: list[int], split: int | None = None) -> int:
    """The bytes that pairs of layers of these widths take when projected to as few dimensions as they may be."""
    return _bytes_at(_NARROWEST, widths, split)


def moment_bytes(dims: list[int], split: int | None) -> int:
    """The bytes of the moments of pairs of layers held in these widths."""
    own = sum(d * d for d in dims)
    within = (sum(dims) ** 2 - own) // 2
    pairs = within if split is None else sum(dims[:split]) * sum(dims[split:])
    return ITEM * (own + pairs + len(dims) * sum(dims))


def for_moments(memory: int, widths: list[int], split: int | None) -> int:
    """The part of a budget that moments may take; the rest is for samples kept in full."""
    return max(memory - memory // _SHARE, min(least_bytes(widths, split), memory))


def most_kept(memory: int, dims: list[int], clustered: bool) -> int:
    """The rows of samples that may be kept in full, of layers held in these widths."""
    most = memory // (ITEM * sum(dims))
    return most if clustered else min(most, SAMPLES)


def projected_width(memory: int, widths: list[int], split: int | None) -> int:
    """The largest even width to which wider layers must be projected to fit the memory."""
    low, high = _NARROWEST, max(widths)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _bytes_at(middle, widths, split) <= memory else (low, middle)
    return low - low % 2


def _bytes_at(k: int, widths: list[int], split: int | None) -> int:
    full, half = ([min(d, k // by) if d > k else d for d in widths] for by in (1, 2))
    return moment_bytes(full, split) + moment_bytes(half, split)
