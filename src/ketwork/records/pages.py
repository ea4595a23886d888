"""Records as HTML pages: the slot that the report room fills when it is imported, since this room may not import it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Writer = TypeVar("Writer", bound=Callable[..., Path])

_writers: dict[type, Callable[..., Path]] = {}


def writes(kind: type) -> Callable[[Writer], Writer]:
    """Makes the decorated function `(record, path, …) -> path` the one that writes the pages of `kind`."""

    def register(writer: Writer) -> Writer:
        _writers[kind] = writer
        return writer

    return register


def write(record: Any, path: str | Path, **options: Any) -> Path:
    """The path of the page that the writer of the record's kind wrote."""
    return _writers[type(record)](record, path, **options)
