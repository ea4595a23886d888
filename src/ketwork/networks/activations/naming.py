"""Names of layers: the order of those with numbers in them, and the error of names that are none."""

from __future__ import annotations

import re


def by_number(name: str) -> list[tuple[int, str]]:
    """What sorts names with the numbers in them by their value: `layers.2` before `layers.10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


class SelectorError(LookupError):
    """A selector that matches no module of the network."""

    def __str__(self) -> str:
        return str(self.args[0])
