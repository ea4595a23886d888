"""Feed-forward networks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ketwork.waves.models.network import Network
from ketwork.waves.spaces import Space


class FeedForward(Network):
    """Dense layers of the given widths with GELU between them, to log|ψ| and, with `phase`, arg ψ."""

    def __init__(
        self, widths: Sequence[int] = (32, 32), *, phase: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.widths, self.phase, self.dtype = tuple(widths), phase, dtype or torch.get_default_dtype()

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes the layers, their weights normal with variance 1/inputs."""
        sizes = [space.sites * self.units, *self.widths, 2 if self.phase else 1]
        self.layers = nn.ModuleList(nn.Linear(a, b, dtype=self.dtype) for a, b in pairwise(sizes))
        initialize(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): (batch,)."""
        h = self.features(x)
        for layer in self.layers[:-1]:
            h = nn.functional.gelu(layer(h))
        out = self.layers[-1](h)
        return torch.complex(out[:, 0], out[:, 1]) if self.phase else out[:, 0]


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draws every matrix anew from `generator`, normal with variance 1/inputs, and sets biases to 0."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
