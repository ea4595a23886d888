"""The order of names with numbers in them."""

from __future__ import annotations

import re


def by_number(name: str) -> list[tuple[int, str]]:
    """What sorts names with the numbers in them by their value: `layers.2` before `layers.10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
