"""Random keys of samples that follow from their place in the data alone, whatever batches or processes they come in."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 53  # of a float64's fraction


def sample_keys(start: int, count: int, seed: int = 0) -> Tensor:
    """Keys in [0, 1) of the samples `start` … `start + count − 1`, (count,), float64: SplitMix64 of their places.

    Steele, Lea & Flood (2014), Fast splittable pseudorandom number generators.

    >>> torch.equal(sample_keys(0, 5), torch.cat([sample_keys(0, 2), sample_keys(2, 3)]))
    True
    """
    z = torch.arange(start + 1, start + count + 1) * _signed(0x9E3779B97F4A7C15) + _signed(
        (seed * 0xD1342543DE82EF95 + 0x5851F42D4C957F2D) % 2**64
    )
    z = (z ^ _right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _right(z, 27)) * _signed(0x94D049BB133111EB)
    return _right(z ^ _right(z, 31), 64 - _BITS).double() / 2**_BITS


def _right(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of signed integers."""
    return (z >> bits) & (2 ** (64 - bits) - 1)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
