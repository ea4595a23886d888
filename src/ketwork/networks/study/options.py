"""What a study reads beside its layers' vectors, by the arguments that ask for it."""

from __future__ import annotations

from torch import nn

from ketwork.networks.study.attention import Patterns
from ketwork.networks.study.extras import Extra
from ketwork.networks.study.lens import Lens


def extras_of(network: nn.Module, *, lens: bool, attention: bool) -> tuple[Extra, ...]:
    """The extras of a study.

    Raises:
        ValueError: the network does not have what one reads.
    """
    extras: tuple[Extra, ...] = (Lens.from_network(network),) if lens else ()
    return (*extras, Patterns.from_network(network)) if attention else extras
