"""Dead neurons with the error of the samples drawn."""

import math

import pytest
import torch

from ketwork.networks.moments import Vectors
from ketwork.networks.monitor.firing import Firing


def firing(values: torch.Tensor) -> Firing:
    """Of activations (N, T, d)."""
    n, t, d = values.shape
    return Firing.from_vectors(Vectors(values.reshape(n * t, d), torch.arange(n).repeat_interleave(t)))


@pytest.mark.parametrize("positions", [1, 3])
def test_the_error_is_that_of_the_jackknife(positions):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(24, positions, 40, generator=generator)
    rate = torch.linspace(0, 0.15, 40) ** 1.5
    values = values * (torch.rand(values.shape, generator=generator) < rate)
    dead = firing(values).dead()
    shares = torch.tensor(
        [(values[torch.arange(24) != i] == 0).all(dim=(0, 1)).double().mean() for i in range(24)]
    )
    assert 0.1 < dead.value == (values == 0).all(dim=1).all(dim=0).double().mean()
    assert dead.stderr == pytest.approx(math.sqrt(23 / 24 * (shares - shares.mean()).square().sum()))
    assert dead.stderr > 0.01


def test_batches_add_up():
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(30, 2, 25, generator=generator) * (torch.rand(30, 2, 25, generator=generator) < 0.03)
    total = firing(values)
    parts = firing(values[:7])
    for some in (values[7:8], values[8:21], values[21:]):
        parts += firing(some)
    assert parts.samples == total.samples == 30
    assert torch.equal(parts.counts, total.counts)
    assert torch.equal(parts.last, total.last)
    assert parts.dead().stderr == total.dead().stderr > 0


def test_no_samples_and_one():
    assert math.isnan(firing(torch.zeros(0, 1, 4)).dead())
    one = firing(torch.tensor([[[0.0, 1.0, 0.0, 0.0]]])).dead()
    assert one.value == 0.75
    assert math.isnan(one.stderr)
