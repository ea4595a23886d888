"""A network, and data of three classes that it is studied on."""

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw


def drawn(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points of three classes in six dimensions, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    centres = 2 * torch.eye(3, 6, dtype=torch.float64)
    x = centres[labels] + 0.7 * torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x, labels


@pytest.fixture(scope="session")
def three() -> nn.Sequential:
    """Two layers in double precision, so that numbers can be compared to many digits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)).double().eval()


@pytest.fixture(scope="session")
def labelled(three: nn.Sequential) -> kw.Study:
    """Its study on 6,000 labelled points, 1,024 of them held out."""
    return kw.study(three, drawn(6000, 1))
