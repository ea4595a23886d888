"""Kept vectors as a state weighs them."""

import torch
from torch import nn

import ketwork as kw


def test_lengths_of_centred_vectors_have_64_bits() -> None:
    """Vectors whose differences from their mean are exact in 32 bits, and the lengths √.375, √.875 are not."""
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1], [1, -1, -1, -1]])
    layer = kw.study(nn.Identity(), signs * 0.5, layers="*", center=True)[0]
    weights = layer.state().sample.weights.flatten().sort().values
    expected = torch.tensor([0.375, 0.375, 0.875, 0.875], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=1e-14, atol=0)
