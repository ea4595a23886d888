"""What ketwork's own wave networks share: they are built when their space is known."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from ketwork.waves.models.tables import Tables
from ketwork.waves.spaces import Space


class Network(nn.Module):
    """A module whose parameters are made by `build(space, generator)`, which `Wave` calls.

    `features(x)` is what the layers see: ±1 for two levels (a spin as it is, a qubit's 0 as +1), and one-hot
    levels, site by site, for more, since a line through three values would tie the weight of the middle one.
    `complex` says whether the log-amplitudes are complex, `holomorphic` whether they are so in complex
    parameters.
    """

    complex = False
    holomorphic = False
    given: tuple[tuple[Any, ...], dict[str, Any]]
    """What it was constructed with: a file holds it, to make the network again."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """The network, which keeps what it is given."""
        network = super().__new__(cls)
        object.__setattr__(network, "given", (args, kwargs))
        return network

    def build(self, space: Space, generator: torch.Generator) -> None:
        """Makes the parameters for a space. A second call on another space is refused."""
        if getattr(self, "space", None) not in (None, space):
            raise ValueError("This network was built for another space. Make a new one for this space.")
        if getattr(self, "space", None) is None:
            self.space = space
            self.make(space, generator)

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes the parameters: what a network implements."""
        raise NotImplementedError

    def tables(self) -> Tables | None:
        """What compiled flips read, at the present parameters; None for a network that has no such form."""
        return None

    @property
    def units(self) -> int:
        """The number of features a site."""
        return 1 if self.space.levels == 2 else self.space.levels

    def features(self, x: Tensor) -> Tensor:
        """The features of configurations (batch, sites): (batch, sites·units)."""
        if self.space.levels == 2:
            return (2 * self.space.first + self.space.slope - 2 * x) / self.space.slope
        levels = torch.arange(self.space.levels, device=x.device)
        return (self.space.level(x)[..., None] == levels).to(x.dtype).flatten(-2)


def normal(*shape: int, std: float, generator: torch.Generator, dtype: torch.dtype) -> nn.Parameter:
    """A parameter of independent normal entries; a complex one has variance std² in all."""
    return nn.Parameter(torch.randn(*shape, generator=generator, dtype=dtype) * std)
