"""Layers of 8 bits have torchao's weights: the same numbers, in a quarter of the bytes."""

import pytest
import torch
from torch import nn

import ketwork as kw

quantization = pytest.importorskip("torchao.quantization")
if not hasattr(quantization, "Int8Tensor"):
    pytest.skip("torchao is older than its Int8Tensor", allow_module_level=True)


def test_torchao_computes_what_the_record_measured() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    x = torch.randn(300, 64)
    result = kw.compress(net, x, keep=0.28, cost="bytes")
    small = result.to_torchao()
    eight = set(result.table().loc[lambda table: table["bits"] == 8, "layer"])
    tensors = {
        path: module.weight.data
        for path, module in small.named_modules()
        if isinstance(module, nn.Linear) and isinstance(module.weight.data, quantization.Int8Tensor)
    }
    assert len(eight) >= 2
    assert {path.partition(".")[0] for path in tensors} == eight
    for path, tensor in tensors.items():
        weight = result.model.get_submodule(path).weight
        assert type(weight.data) is torch.Tensor  # the record's own network is as it was
        assert tensor.qdata.dtype == torch.int8
        torch.testing.assert_close(tensor.dequantize(), weight, atol=0, rtol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(small(x), result.model(x), atol=1e-4, rtol=1e-3)


def test_without_8_bits_it_says_how_to_get_them() -> None:
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
    result = kw.compress(net, torch.randn(60, 32), keep=0.9)
    with pytest.raises(ValueError, match=r"must have linear layers of 8 bits.*cost='bytes'"):
        result.to_torchao()
