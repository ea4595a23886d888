"""What can be compressed, its matrix view, and its factors as plain modules."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ketwork.networks.compression.forms import Form
from ketwork.networks.compression.layers import WeightLayer, weight_layers

CASES = {
    "linear": (lambda: nn.Linear(4, 5), (2, 7, 4)),
    "linear without bias": (lambda: nn.Linear(4, 5, bias=False), (6, 4)),
    "Conv1D of transformers": (lambda: Conv1D(5, 4), (2, 7, 4)),
    "stride and reflection": (
        lambda: nn.Conv2d(3, 5, 3, stride=2, padding=1, padding_mode="reflect"),
        (2, 3, 9, 8),
    ),
    "same padding, dilated": (lambda: nn.Conv2d(3, 5, (3, 5), padding="same", dilation=2), (2, 3, 9, 8)),
    "one image alone": (lambda: nn.Conv2d(3, 5, 3, bias=False), (3, 9, 8)),
    "conv1d": (lambda: nn.Conv1d(3, 5, 4, stride=2, padding=1), (2, 3, 9)),
    "conv1d circular": (lambda: nn.Conv1d(3, 5, 3, padding=1, padding_mode="circular"), (2, 3, 9)),
}


def made(name: str) -> tuple[WeightLayer, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build, shape = CASES[name]
    net = nn.Sequential(build())
    (layer,), left = weight_layers(net)
    assert left == {}
    return layer, net, torch.randn(shape)


@pytest.mark.parametrize("name", CASES)
def test_the_matrix_view_computes_what_the_layer_does(name: str) -> None:
    layer, net, x = made(name)
    rows = layer.rows_in(x).double() @ layer.weight().T + layer.bias()
    torch.testing.assert_close(rows, layer.rows_out(net(x)).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_factors_of_full_rank_are_the_layer(name: str) -> None:
    layer, net, x = made(name)
    q = torch.linalg.qr(torch.randn(layer.m, layer.m, dtype=torch.float64))[0]
    form = Form("outputs", layer.m)
    factored = layer.factored(form, [q.T @ layer.weight(), q], layer.bias())
    assert {type(part) for part in factored} <= {nn.Linear, nn.Conv1d, nn.Conv2d}
    torch.testing.assert_close(factored(x), net(x), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in factored.parameters()) == layer.m * (layer.m + layer.k) + layer.m


def test_masked_positions_do_not_count() -> None:
    layer, _, x = made("linear")
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[0, :3] = True
    torch.testing.assert_close(layer.rows_in(x, mask), x[0, :3])


def test_what_is_left_alone_is_listed_with_the_reason() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    class Own(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return 2 * super().forward(input)

    net = nn.ModuleDict(
        {
            "embedding": nn.Embedding(9, 4),
            "head": nn.Linear(4, 9, bias=False),
            "norm": nn.LayerNorm(4),
            "raw": Raw(),
            "attention": nn.MultiheadAttention(4, 2),
            "depthwise": nn.Conv2d(4, 4, 3, groups=4),
            "grouped": nn.Conv2d(4, 4, 3, groups=2),
            "transposed": nn.ConvTranspose2d(4, 4, 3),
            "own": Own(4, 4),
            "spectral": nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
            "plain": nn.Linear(4, 4),
        }
    )
    net["head"].weight = net["embedding"].weight  # type: ignore[assignment]
    layers, left = weight_layers(net)
    assert [layer.path for layer in layers] == ["attention.out_proj", "plain"]
    assert left["embedding"] == "its weight is tied to another module's"
    assert left["head"] == "its weight is tied to another module's"
    assert left["raw"] == "Raw uses raw parameters (scale)"
    assert left["attention"] == "MultiheadAttention uses raw parameters (in_proj_weight, in_proj_bias)"
    assert left["depthwise"] == "depthwise"
    assert left["grouped"] == "2 groups"
    assert left["transposed"] == "ConvTranspose2d is not handled"
    assert left["own"] == "Own has a forward of its own"
    assert left["spectral"] == "its weight is parametrized"
    assert left["norm"] == "normalisations are left"


def test_a_module_held_under_two_names_is_one_layer() -> None:
    shared = nn.Linear(4, 4)
    (layer,), _ = weight_layers(nn.ModuleDict({"a": shared, "b": shared}))
    assert layer.paths == ("a", "b")
