"""Rows of what modules are called with, and of any place in what they put out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.selectors import select
from ketwork.networks.activations.spots import Spot, as_inputs, as_tree, spot_of

from .language import DATA, llama, unchanged


def entropy_of(rows: Tensor) -> float:
    kets = nn.functional.normalize(rows.double(), dim=-1)
    weights = torch.linalg.eigvalsh(kets.T @ kets / len(kets)).clamp(min=1e-300)
    return float(-(weights * weights.log2()).sum())


def test_names_of_places() -> None:
    assert spot_of("a.b:input") == Spot("a.b", "input")
    assert spot_of("a.*:output[1][0].hidden") == Spot("a.*", "output", "[1][0].hidden")
    assert (spot_of("a.b"), spot_of("a:inputs"), spot_of("a:input x")) == (None, None, None)
    assert (Spot("a", "output").name, Spot("a", "output", "[1]").name) == ("a", "a:output[1]")
    assert as_inputs(as_tree((1, 2), {"x": 3})) == ((1, 2), {"x": 3})


def test_a_selector_chooses_places_of_each_module_that_it_matches() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    assert list(select(net, ["?:input", "2", "(model):input"]).chosen) == [
        "(model):input", "0:input", "1:input", "2", "2:input",
    ]  # fmt: skip
    assert list(select(net, "0:output").chosen) == ["0"]
    named = nn.ModuleDict({"a:input": nn.Linear(3, 2)})
    assert list(select(named, "a:input").chosen) == ["a:input"]
    with pytest.raises(LookupError, match=r"'4' matches none"):
        select(net, "4:input")


def test_neurons_heads_and_the_stream_between_attention_and_mlp_of_a_decoder() -> None:
    net = llama()
    seen: dict[str, list[Tensor]] = {
        "mlp.down_proj": [],
        "self_attn.o_proj": [],
        "post_attention_layernorm": [],
    }
    block = net.model.layers[1]
    mask = torch.cat([batch["attention_mask"] for batch in DATA]).bool()
    handles = [
        block.get_submodule(name).register_forward_pre_hook(lambda m, given, kept=kept: kept.append(given[0]))
        for name, kept in seen.items()
    ]
    with torch.no_grad():
        for batch in DATA:
            net(**batch)
    for handle in handles:
        handle.remove()
    layers = [f"model.layers.1.{name}:input" for name in seen]
    record = unchanged(net, lambda: kw.study(net, DATA, layers=layers))
    assert {layer.name for layer in record} == {*layers}
    for name, rows in seen.items():
        layer = record[f"model.layers.1.{name}:input"]
        assert (layer.kets, layer.N) == (80, 12)
        assert layer.kind.endswith(" input")
        assert layer.estimates["entropy"].plain == pytest.approx(entropy_of(torch.cat(rows)[mask]), abs=3e-6)
    assert record["model.layers.1.mlp.down_proj:input"].d == 40


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Pair()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(3, scale=x.sin(), x=x)[1]


class Pair(nn.Module):
    """Puts out (input, twice the input) and is called with a number and two tensors that have names."""

    def forward(self, number: int, *, scale: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, number * x * scale


def test_each_argument_and_each_entry_of_a_tuple() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    places = {
        "inner:input": x.sin(), "inner:input.scale": x.sin(), "inner:input.x": x,
        "inner:output[0]": x, "inner:output[1]": 3 * x * x.sin(),
    }  # fmt: skip
    for place, rows in places.items():
        layer = kw.study(Named(), x, layers=place)[0]
        assert layer.name == place
        assert layer.estimates["entropy"].plain == pytest.approx(entropy_of(rows), abs=1e-5)
    one = kw.study(Named(), x, layers=["inner:input.x", "inner:output[0]"])
    assert [layer.aliases for layer in one] == [("inner:output[0]",)]  # the very tensor
    assert "inner:output[0]" in one
    skipped = kw.study(Named(), x, layers=["(model)", "inner:output[2]"]).skipped
    assert skipped == {
        "inner:output[2]": "its output has floating-point tensors at [0], [1], but none at [2]"
    }


def test_the_cell_state_of_an_lstm() -> None:
    torch.manual_seed(0)
    net, x = nn.LSTM(5, 4, batch_first=True), torch.randn(50, 6, 5)
    record = kw.study(net, x, layers=["(model):output[1][1]", "(model)"])
    with torch.no_grad():
        cell = net(x)[1][1][0]
    assert record["(model):output[1][1]"].estimates["entropy"].plain == pytest.approx(
        entropy_of(cell), abs=1e-5
    )
    assert record["(model)"].leaf == "[0]"


def test_what_a_module_is_called_with_can_collapse() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(80, 4)
    record = kw.study(net, x, layers="2:input")
    states = record[0].density.eigenstates(2)[1].amplitudes.T.to(torch.float32)
    with torch.no_grad():
        hidden = net[1](net[0](x))
        expected = net[2](hidden @ states @ states.T)
        norms = hidden.norm(dim=1, keepdim=True) / (hidden @ states @ states.T).norm(dim=1, keepdim=True)
        with kw.collapse(net, {"2:input": 2}, study=record):
            out = net(x)
    assert net[2].bias is not None
    scaled = (expected - net[2].bias) * norms.nan_to_num(0, 0, 0) + net[2].bias
    torch.testing.assert_close(out, scaled.detach(), rtol=1e-4, atol=1e-5)
