"""`Source`: where a pass gets its activations from, a live network or files, as what gathers them sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ketwork.networks.activations.captures import Seen
from ketwork.networks.activations.info import Activation, Key


class Source(Protocol):
    """Hands over each activation; `refused` are the rows that could not be read in some batch."""

    refused: set[Key]

    def receiving(self, receive: Callable[[Activation], None]) -> AbstractContextManager[None]:
        """A block inside which `receive` gets the activations."""

    @property
    def notes(self) -> Sequence[str]:
        """What the record should say of how the activations were read."""

    def refuse(self, key: Key, reason: str) -> None:
        """Lets a layer have no row, for a reason."""

    def names(self, rows: Collection[Key]) -> dict[Key, tuple[Key, tuple[str, ...]]]:
        """What each row is called, and by which other names it can be found."""

    def reasons(self) -> dict[str, str]:
        """The layers without a row so far, each with its reason."""

    def seen(self) -> Seen:
        """What the batches so far have shown, for a checkpoint."""

    def restore(self, seen: Seen) -> None:
        """Takes over what other batches have shown."""
