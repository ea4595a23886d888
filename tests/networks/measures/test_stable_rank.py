"""The stable rank of layers whose spectrum is known, against NumPy's norms, and under a sketch."""

import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw


def test_an_even_spectrum_has_as_many_dimensions_and_a_single_direction_has_one() -> None:
    even = kw.study(nn.Identity(), torch.eye(6).repeat(20, 1))["(model)"]
    assert even.stable_rank.plain == pytest.approx(6)
    one = kw.study(nn.Identity(), torch.ones(50, 4))["(model)"]
    assert (one.stable_rank, one.stable_rank.stderr) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert one.stable_rank.unit == "dimensions"


def test_it_is_the_ratio_of_norms_with_the_error_of_the_leading_eigenvalue() -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9)
    layer = kw.study(nn.Identity(), x)["(model)"]
    a = (x / x.norm(dim=1, keepdim=True)).numpy().astype(float)
    ratio = np.linalg.norm(a) ** 2 / np.linalg.norm(a, 2) ** 2
    assert layer.stable_rank.plain == pytest.approx(ratio, rel=1e-6)
    top = layer.top_weight
    for sign in (1, -1):
        end = layer.stable_rank.value - sign * layer.stable_rank.stderr
        assert end == pytest.approx(1 / (top.value + sign * top.stderr))
    assert layer.stable_rank <= layer.participation_ratio


def test_a_sketch_bounds_it() -> None:
    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(0)) / torch.arange(1, 65)
    exact = kw.study(nn.Identity(), x)["(model)"].stable_rank.plain
    rough = kw.study(nn.Identity(), x, memory=70_000)["(model)"].stable_rank
    assert rough.bounds is not None
    assert rough.low <= exact <= rough.high


def test_without_a_state_there_is_none() -> None:
    table = kw.study(nn.Identity(), torch.zeros(5, 3)).table()
    assert table["stable_rank"].isna().all()
    assert "stable_rank_stderr" in table
