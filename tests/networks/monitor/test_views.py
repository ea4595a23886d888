"""LiDAR, where each sample has several views."""

import math

import pytest
import torch

from ketwork.networks.monitor.views import DELTA, Views, lidar


def published(grouped: torch.Tensor) -> float:
    """Thilak et al. 2023, equations 1 to 4, with a symmetric root: exp of the entropy of the whitened spectrum."""
    n, q, d = grouped.shape
    flat = grouped.reshape(n * q, d)
    means = grouped.mean(dim=1)
    between = sum(torch.outer(m - flat.mean(0), m - flat.mean(0)) for m in means) / n
    within = sum(torch.outer(x - m, x - m) for group, m in zip(grouped, means, strict=True) for x in group)
    within = within / (n * (q - 1)) + DELTA * torch.eye(d).double()
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ torch.diag(values**-0.5) @ vectors.T
    spectrum = torch.linalg.eigvalsh(root @ between @ root).clamp(min=0)
    p = spectrum / spectrum.sum()
    return math.exp(-float(torch.special.xlogy(p, p).sum()))


@pytest.mark.parametrize(("n", "d"), [(40, 6), (5, 12)])
def test_it_is_what_was_published(n, d):
    generator = torch.Generator().manual_seed(n)
    rows = torch.randn(n, 1, d, generator=generator).double() * torch.linspace(1, 0.1, d)
    rows = rows + 0.2 * torch.randn(n, 3, d, generator=generator).double()
    assert lidar(rows) == pytest.approx(published(rows), rel=1e-9)


def test_dimensions_that_only_the_views_have_do_not_count():
    generator = torch.Generator().manual_seed(0)
    n, d = 400, 10
    own = torch.randn(n, 1, d, generator=generator).double() * torch.tensor([1.0] * 4 + [0.0] * 6)
    noise = 0.05 * torch.randn(n, 8, d, generator=generator).double()
    noise[..., 4:] *= 20
    rows = (own + noise).flatten(0, 1)
    value = Views(rows, 8).lidar()
    assert value.value == pytest.approx(4, abs=0.1)  # a plain effective rank would be near 10
    assert 0 < value.stderr < 0.1


def test_too_few_samples_have_none_and_collapsed_ones_a_single_dimension():
    assert math.isnan(Views(torch.randn(8, 3), 2).lidar())
    assert Views(torch.ones(64, 3), 2).lidar().value == 1
