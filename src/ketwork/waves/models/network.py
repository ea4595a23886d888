"""What ketwork's own wave networks share: they are built when their space is known."""

import torch
from torch import Tensor, nn

from ketwork.waves.spaces import Space


class Network(nn.Module):
    """A module whose parameters are made by `build(space, generator)`, which `Wave` calls.

    `inputs(x)` maps the space's values linearly onto [−1, 1]: a spin stays ±1, a qubit's 0 becomes +1.
    `complex` says whether the log-amplitudes are complex, `holomorphic` whether they are so in complex parameters.
    """

    complex = False
    holomorphic = False

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

    def inputs(self, x: Tensor) -> Tensor:
        """Values on [−1, 1], level 0 at +1."""
        half = self.space.slope * (self.space.levels - 1) / 2
        return (self.space.first + half - x) / half


def normal(*shape: int, std: float, generator: torch.Generator, dtype: torch.dtype) -> nn.Parameter:
    """A parameter of independent normal entries; a complex one has variance std² in all."""
    return nn.Parameter(torch.randn(*shape, generator=generator, dtype=dtype) * std)
