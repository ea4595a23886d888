"""Networks that several tests compare."""

import pytest
import torch
from torch import nn


@pytest.fixture
def chain() -> nn.Module:
    """Four layers, two of them linear."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4), nn.ReLU()).eval()
