"""The stable rank of layers whose spectrum is known, against NumPy's norms, and under a sketch."""

import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.measures.intervals import interval


def test_an_even_spectrum_has_as_many_dimensions_and_a_single_direction_has_one() -> None:
    even = kw.study(nn.Identity(), torch.eye(6).repeat(20, 1))["(model)"]
    assert even.stable_rank.plain == pytest.approx(6)
    one = kw.study(nn.Identity(), torch.ones(50, 4))["(model)"]
    assert (one.stable_rank, one.stable_rank.stderr) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert one.stable_rank.unit == "dimensions"


def test_it_is_the_ratio_of_norms_with_the_error_of_the_leading_eigenvalue() -> None:
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9)
    layer = kw.study(nn.Identity(), x)["(model)"]
    a = (x / x.norm(dim=1, keepdim=True)).numpy().astype(float)
    ratio = np.linalg.norm(a) ** 2 / np.linalg.norm(a, 2) ** 2
    assert layer.stable_rank.plain == pytest.approx(ratio, rel=1e-6)
    # To first order its interval is the image of the interval of λ₁.
    top, half = layer.top_weight, 1.96 * layer.stable_rank.stderr
    assert half == pytest.approx(1.96 * top.stderr / top.value**2, rel=0.005)
    for sign in (1, -1):
        end = layer.stable_rank.value - sign * half
        assert end == pytest.approx(1 / (top.value + 1.96 * sign * top.stderr), rel=0.005)
    assert layer.stable_rank <= layer.participation_ratio


def test_it_is_never_beyond_the_dimensions() -> None:
    for seed in range(10):
        layer = kw.study(nn.Identity(), torch.randn(30, 12, generator=torch.Generator().manual_seed(seed)))[0]
        assert layer.stable_rank - 1.96 * layer.stable_rank.stderr + 1e-9 >= 1
        assert layer.stable_rank + 1.96 * layer.stable_rank.stderr <= 12 + 1e-9


def test_where_all_directions_may_be_alike_it_reaches_the_dimensions() -> None:
    held = 0
    for seed in range(20):
        layer = kw.study(nn.Identity(), torch.randn(120, 12, generator=torch.Generator().manual_seed(seed)))[
            0
        ]
        rank, top = layer.stable_rank, layer.top_weight
        held += rank + 1.96 * rank.stderr >= 12 - 1e-9
        assert (rank + 1.96 * rank.stderr >= 12 - 1e-9) == (top - 1.96 * top.stderr <= 1 / 12 + 1e-9)
    assert held >= 18


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


def test_no_rounding_makes_an_error_negative(tmp_path) -> None:
    for seed in range(40, 50):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(1, 7, generator=draw) * (torch.rand(40, 1, generator=draw) + 0.5)  # one direction
        study = kw.study(nn.Identity(), x)
        assert all(not estimate.stderr < 0 for estimate in study[0].estimates.values())
        study.save(tmp_path / "s.safetensors")
        assert kw.Study.load(tmp_path / "s.safetensors").table().equals(study.table())
    assert interval(1 + 4e-16, 1.0, 1.0).stderr == 0
