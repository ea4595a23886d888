import pytest
import torch
from torch import Tensor, nn


class Fan(nn.Module):
    """Puts the columns of its input out again through one identity layer each: layers of any given activations."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths
        self.parts = nn.ModuleList(Part() for _ in widths)

    def forward(self, x: Tensor) -> None:
        for part, piece in zip(self.parts, x.split(self.widths, dim=-1), strict=True):
            part(piece)


class Part(nn.Module):
    """Gives back a copy."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def related(n: int, widths: list[int], seed: int = 0) -> list[Tensor]:
    """Layers that share a few directions, each with noise and an offset of its own."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, 5, generator=generator)
    layers = []
    for d in widths:
        mixed = shared @ torch.randn(5, d, generator=generator)
        layers.append(
            mixed + torch.randn(n, d, generator=generator) + 2 * torch.randn(d, generator=generator)
        )
    return layers


@pytest.fixture
def chain() -> nn.Module:
    """Four layers, two of them linear."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4), nn.ReLU()).eval()
