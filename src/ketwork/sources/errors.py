"""What is wrong with a model or data source, in words that name the argument and the remedy."""

from __future__ import annotations

import pickle
import struct
import tokenize
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import SequenceMatcher
from zipfile import BadZipFile

DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
)
"""What libraries raise on a damaged file, as thousands of them showed; tests/trust tries them."""


class SourceError(ValueError):
    """A source that cannot be used as given: no such file, column or module, or contents of another kind."""


class SourceFailed(RuntimeError):
    """A source's own code that raised while it was imported or called; the exception is the cause."""


@contextmanager
def readable(argument: str, spec: str) -> Iterator[None]:
    """Says in a `SourceError` which source the system could not read, or had no memory for."""
    try:
        yield
    except MemoryError as error:
        raise SourceError(
            f"Argument `{argument}` must name what fits into memory, but {_quoted(spec)} does not, or declares a size "
            "that it does not have."
        ) from error
    except OSError as error:
        raise SourceError(
            f"Argument `{argument}` must name what can be read, but {_quoted(spec)} cannot: {error.strerror or error}."
        ) from error


def _quoted(spec: str, most: int = 200) -> str:
    return repr(spec if len(spec) <= most else f"{spec[:most]}…")


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """The candidates, the most similar to `name` first; of equals, the earlier first.

    >>> nearest("lable", ["text", "label", "table_of_contents"])
    ['label', 'table_of_contents', 'text']
    """
    return sorted(candidates, key=lambda other: -SequenceMatcher(None, name.lower(), other.lower()).ratio())


def listed(names: Iterable[str], most: int = 8) -> str:
    """The names joined by commas, cut after `most` with the number of the others.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    visible = ", ".join(names[:most])
    return visible if len(names) <= most else f"{visible} and {len(names) - most} more"
