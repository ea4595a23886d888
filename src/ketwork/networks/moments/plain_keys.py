"""Keys of layers as a file has them: lists of texts and numbers."""

from __future__ import annotations

from collections.abc import Hashable


def plain(key: Hashable) -> list[str | int]:
    """A key as a list: texts and numbers, which may stand in tuples."""
    if isinstance(key, tuple):
        return [part for inner in key for part in plain(inner)]
    if isinstance(key, str | int):
        return [key]
    raise TypeError(f"A layer's key must be a text, a number or a tuple of them to be saved, but is {key!r}.")


def key_from(parts: list[str | int]) -> Hashable:
    """The key that `plain` gave, its tuples as one."""
    return parts[0] if len(parts) == 1 else tuple(parts)
