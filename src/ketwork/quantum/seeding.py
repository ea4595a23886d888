"""Randomness by argument: `seed`, an integer or a generator, never global state unless None is said."""

from __future__ import annotations

import torch

Seed = int | torch.Generator


def generator_or_none(seed: Seed | None, device: torch.device | str = "cpu") -> torch.Generator | None:
    """As `generator_from`, and None for torch's own global generator."""
    return None if seed is None else generator_from(seed, device)


def generator_from(seed: Seed, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator that a `seed` argument names: the given one, or a new one.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"Argument `seed` must be an integer or a torch.Generator, but is {seed!r}.")
    return torch.Generator(device).manual_seed(seed)
