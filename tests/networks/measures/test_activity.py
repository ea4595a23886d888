"""The mean norm's error: that of a ratio of means over samples, as far as Student's and Johnson's intervals reach."""

import math

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.measures.intervals import reaching


def test_the_error_of_the_mean_norm_is_of_samples_and_reaches_as_far_as_their_skewness() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, 3, generator=generator) * torch.randn(60, 1, 1, generator=generator).exp()
    mask = torch.arange(5) < torch.randint(1, 6, (60, 1), generator=generator)
    found = kw.study(nn.Identity(), x, mask=mask, labels=False, reading=kw.Reading(feature_axis=-1))[0].norm
    lengths, counts = (x.norm(dim=-1).double() * mask).sum(dim=1), mask.sum(dim=1).double()
    mean = float(lengths.sum() / counts.sum())
    changes = lengths - mean * counts
    stderr = math.sqrt(float(changes.square().sum()) * 60 / 59) / float(counts.sum())
    factor = reaching(changes, torch.ones(60, dtype=torch.float64))
    assert factor > 1.1
    assert found.value == pytest.approx(mean, rel=1e-6)
    assert found.stderr == pytest.approx(factor * stderr, rel=1e-4)
