"""How results are shown: the slot that the report package fills, which imports them all while none imports it."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

How = Literal["page", "plot"]
Presenter = TypeVar("Presenter", bound=Callable[..., Any])

_PRESENTERS: dict[tuple[type, How], Callable[..., Any]] = {}


def presents(kind: type, how: How) -> Callable[[Presenter], Presenter]:
    """Makes the decorated function the one that writes the pages, or draws the plots, of results of that class."""

    def register(presenter: Presenter) -> Presenter:
        _PRESENTERS[kind, how] = presenter
        return presenter

    return register


class Presented:
    """A result that can be shown: a page, a plot, and itself in a notebook."""

    def report(self, path: str | Path, **options: Any) -> Path:
        """Writes the result as one HTML file that needs no network, and returns its path.

        Raises:
            ImportError: the extra `report` is missing.
            OSError: the file cannot be written.
        """
        return _presenter(type(self), "page")(self, path, **options)

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draws the result into matplotlib axes (new ones by default) and returns them.

        Raises:
            ImportError: matplotlib is missing (extra `plot`).
        """
        return _presenter(type(self), "plot")(self, ax=ax, **options)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _presenter(kind: type, how: How) -> Callable[..., Any]:
    import_module("ketwork.report")  # registers itself here
    for each in kind.__mro__:
        if (each, how) in _PRESENTERS:
            return _PRESENTERS[each, how]
    raise NotImplementedError(f"There is no {how} of a {kind.__name__}.")
