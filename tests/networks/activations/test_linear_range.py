"""The range of linear layers: what lies in it, and for which layers there is one."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from transformers.pytorch_utils import Conv1D

from ketwork.networks.activations.linear_range import LinearRange, LinearRanges


@pytest.mark.parametrize("bias", [True, False])
def test_all_outputs_lie_in_the_range(bias: bool) -> None:
    linear = nn.Linear(6, 30, bias=bias)
    with torch.no_grad():
        y = linear(torch.randn(50, 6))
    span = LinearRange.of(linear, y)
    assert span is not None
    assert span.rank == 6 + bias
    torch.testing.assert_close(span.states @ span.states.T, torch.eye(span.rank))
    torch.testing.assert_close(y @ span.states.T @ span.states, y, rtol=1e-5, atol=1e-6)


def test_gpt2s_layer_has_its_weight_the_other_way_round() -> None:
    layer = Conv1D(30, 6)
    nn.init.normal_(layer.bias)
    with torch.no_grad():
        y = layer(torch.randn(50, 6))
    span = LinearRange.of(layer, y)
    assert span is not None
    assert span.states.shape == (7, 30)
    torch.testing.assert_close(y @ span.states.T @ span.states, y, rtol=1e-5, atol=1e-6)


def test_a_weight_of_lower_rank_has_a_range_all_the_same() -> None:
    linear = nn.Linear(6, 30)
    with torch.no_grad():
        linear.weight[:, 3] = linear.weight[:, 2]
        y = linear(torch.randn(50, 6))
    span = LinearRange.of(linear, y)
    assert span is not None
    torch.testing.assert_close(span.states @ span.states.T, torch.eye(7))
    torch.testing.assert_close(y @ span.states.T @ span.states, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(20, 30),  # more than half of the dimensions
        nn.Linear(6, 30).bfloat16(),  # its outputs are rounded out of the range
        weight_norm(nn.Linear(6, 30)),
        nn.Conv1d(6, 30, 1),
        nn.Sequential(nn.Linear(6, 30)),
    ],
    ids=["square", "bfloat16", "weight norm", "convolution", "container"],
)
def test_other_modules_have_none(module: nn.Module) -> None:
    dtype = next(module.parameters()).dtype
    assert LinearRange.of(module, torch.zeros(5, 30, dtype=dtype)) is None


def test_a_range_is_computed_once_and_again_when_the_weight_changes() -> None:
    linear, ranges = nn.Linear(6, 30), LinearRanges()
    y = torch.zeros(1, 30)
    first = ranges.of("a", linear, y)
    assert first is not None
    assert ranges.of("a", linear, y) is first
    with torch.no_grad():
        linear.weight.mul_(2)
    second = ranges.of("a", linear, y)
    assert second is not None
    assert second is not first
