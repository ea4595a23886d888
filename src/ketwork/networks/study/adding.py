"""What two studies must have in common to be added, and the settings of their sum."""

from __future__ import annotations

from typing import Any

_ALIKE = ("model", "normalize", "center", "calls", "positions", "generate")


def joined_settings(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """What the settings of both have alike, and as `parts` all of both.

    Raises:
        ValueError: the studies were not made alike.
    """
    differing = [
        f"`{name}` is {a.get(name)!r} and {b.get(name)!r}" for name in _ALIKE if a.get(name) != b.get(name)
    ]
    if differing:
        raise ValueError(f"Studies can only be added that were made alike, but {'; '.join(differing)}.")
    parts = [part for settings in (a, b) for part in settings.get("parts", [settings])]
    return {name: value for name, value in a.items() if name in b and b[name] == value} | {"parts": parts}
