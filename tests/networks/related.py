"""Layers whose activations are given, and their comparison: what tests of similarity have in common."""

import torch
from torch import Tensor, nn

from ketwork.networks.comparison.result import ComparedLayer, Comparison
from ketwork.networks.moments.pair_moments import ALWAYS, MEMORY, PairMoments


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


def compared(
    layers: list[Tensor],
    others: list[Tensor] | None = None,
    batch: int = 16,
    always: int = ALWAYS,
    memory: int = MEMORY,
    **options: object,
) -> tuple[Comparison, str]:
    """The comparison of given activations, streamed in batches, and the form they were held in at the end."""
    moments = PairMoments(always=always, memory=memory)
    keyed = {f"a{i}": layer for i, layer in enumerate(layers)}
    second = {f"b{i}": layer for i, layer in enumerate(others)} if others is not None else None
    for start in range(0, len(layers[0]), batch):
        rows = [
            {key: layer[start : start + batch] for key, layer in side.items()}
            for side in (keyed, second)
            if side is not None
        ]
        moments.add(*rows)
    names = {
        key: ComparedLayer(key, "", x.shape[1], x.shape[1]) for key, x in (keyed | (second or {})).items()
    }
    return Comparison.from_pairs(moments, names, {"model": "a", "other": "b"}, {}, **options), moments.form  # type: ignore[arg-type]
