"""`Extra`: what a study reads in its pass beside the layers' vectors: a lens, attention patterns."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from ketwork.networks.activations import Activation, Batch, Capture, Key
from ketwork.networks.moments import LayerSum


class Extra(ABC):
    """Sums of a batch, for measures that declare its `option`."""

    @abstractmethod
    def watch(self, live: Capture) -> contextlib.AbstractContextManager[None]:
        """The pass, with hooks of its own on the network that a capture holds."""

    @abstractmethod
    def begin(self, batch: Batch) -> None:
        """A new batch; what is known of the one before is forgotten."""

    @abstractmethod
    def take(self, activation: Activation, present: Tensor | None) -> None:
        """One row's activation of the batch, and which of its positions count."""

    @abstractmethod
    def sums(self) -> Iterator[tuple[Key, str, LayerSum]]:
        """The sums of the batch, each with its row's key and its measure's name, once the network has run."""
