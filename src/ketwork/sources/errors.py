"""What is wrong with a model or data source, in words that name the argument and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


class SourceError(ValueError):
    """A source that cannot be used as given: no such file, column or module, or contents of another kind."""


class SourceFailed(RuntimeError):
    """A source's own code that raised while it was imported or called; the exception is the cause."""


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """The candidates, the most similar to `name` first; of equals, the earlier first.

    >>> nearest("lable", ["text", "label", "table_of_contents"])
    ['label', 'table_of_contents', 'text']
    """
    return sorted(candidates, key=lambda other: -SequenceMatcher(None, name.lower(), other.lower()).ratio())


def listed(names: Iterable[str], most: int = 8) -> str:
    """The names joined by commas, cut after `most` with the number left out.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
