"""Which modules are layers: selectors, near misses, and the main layers, the default."""

import re

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.activations.selectors import SelectorError, select
from ketwork.networks.activations.spots import ROOT
from ketwork.networks.study.run import study


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(self.relu(self.bn1(self.conv1(x)))))


class ByAttributes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first = Residual(8)
        self.second = Residual(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(x))).mean(dim=(2, 3)))


class Mlp(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.up = nn.Linear(before, 6)
        self.act = nn.ReLU()
        self.down = nn.Linear(6, after)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


INSIDE = [".conv1", ".relu", ".conv2", ""]


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 3))


def _names(model: nn.Module, data: Tensor, layers: object = None) -> list[str]:
    return [layer.name for layer in study(model, data, layers=layers)]  # type: ignore[arg-type]


MODEL = nn.Sequential(_mlp(), nn.Tanh(), nn.ModuleDict({"head": nn.Linear(3, 2)}))


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("0.1", ["0.1"]),
        ("0.*", ["0.0", "0.1", "0.2", "0.3"]),
        ("2.h[ea]*", ["2.head"]),
        (re.compile(r"\.(0|3)$"), ["0.0", "0.3"]),
        (MODEL[0][1], ["0.1"]),
        (nn.Linear, ["0.0", "0.3", "2.head"]),
        (lambda name, module: name.endswith("head") or isinstance(module, nn.Tanh), ["1", "2.head"]),
        (["2.head", nn.ReLU, "1"], ["0.1", "1", "2.head"]),
        (ROOT, [ROOT]),
        ("", [ROOT]),
    ],
    ids=["name", "glob", "glob set", "pattern", "module", "type", "callable", "list", "root", "empty name"],
)
def test_selectors(selector: object, names: list[str]) -> None:
    assert list(select(MODEL, selector).chosen) == names  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", ["0.l1", "encoder.*", re.compile("xyz"), nn.Conv2d, nn.Linear(2, 2), ["0.1", "nope"]]
)
def test_a_selector_that_matches_nothing(bad: object) -> None:
    with pytest.raises(SelectorError, match=r"Argument `layers` must name modules of the network, but"):
        select(MODEL, bad)  # type: ignore[arg-type]


def test_the_nearest_names_are_listed() -> None:
    network = nn.ModuleDict(
        {"encoder": nn.ModuleDict({"attention": nn.Linear(2, 2), "output": nn.Linear(2, 2)})}
    )
    with pytest.raises(
        SelectorError, match=r"'encoder.atention' matches none. The nearest names are encoder.attention"
    ):
        select(network, "encoder.atention")


def test_no_selector_at_all() -> None:
    with pytest.raises(SelectorError, match="at least one layer, but is empty"):
        select(MODEL, [])
    with pytest.raises(SelectorError, match="this network has no repeated blocks"):
        select(_mlp(), "blocks")
    with pytest.raises(TypeError, match="but holds a int"):
        select(MODEL, [3])  # type: ignore[list-item]


def test_default_of_a_perceptron() -> None:
    assert _names(_mlp(), torch.randn(20, 5)) == ["0", "1", "3"]
    assert select(_mlp()).skipped == {"2": "Dropout does nothing in evaluation"}


def test_default_of_a_wrapped_perceptron_shows_its_layers() -> None:
    record = study(Wrapper(), torch.randn(20, 5))
    assert [layer.name for layer in record] == ["net.up", "net.act", "net"]
    assert record["net.down"] is record["net"]
    assert record[ROOT] is record["net"]


def test_default_of_an_autoencoder_shows_its_layers() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Mlp(5, 2)
            self.decoder = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(x))

    assert _names(Autoencoder(), torch.randn(20, 5)) == [
        "encoder.up", "encoder.act", "encoder", "decoder.0", "decoder.1", "decoder.2",
    ]  # fmt: skip


def test_default_of_a_residual_network_of_attributes() -> None:
    names = _names(ByAttributes(), torch.randn(6, 3, 8, 8))
    blocks = [f"{block}{layer}" for block in ("first", "second") for layer in INSIDE]
    assert names == ["stem", *blocks, "head"]
    assert _names(ByAttributes(), torch.randn(6, 3, 8, 8), "blocks") == ["first", "second"]


def test_default_of_a_residual_network_in_a_sequential() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Sequential(Residual(8), Residual(8)), nn.Flatten(), nn.Linear(288, 2)
    )
    names = _names(network, torch.randn(6, 3, 8, 8))
    assert names == ["0", *(f"1.{i}{layer}" for i in (0, 1) for layer in INSIDE), "3"]
    assert _names(network, torch.randn(6, 3, 8, 8), "blocks") == ["1.0", "1.1"]


def test_default_of_a_transformer_encoder() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    inside = [".self_attn", ".linear1", ".linear2", ""]
    names = _names(encoder, torch.randn(6, 5, 8))
    assert names == [f"layers.{i}{layer}" for i in (0, 1) for layer in inside]
    assert _names(encoder, torch.randn(6, 5, 8), "blocks") == ["layers.0", "layers.1"]


def test_default_of_a_small_gpt() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=50, n_positions=16)
    network = transformers.GPT2Model(config).eval()
    ids = torch.randint(0, 50, (10, 7))
    record = study(network, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, batch_size=4)
    assert {"wte", "h.0", "h.1", "h.0.attn", "h.0.mlp"} <= {layer.name for layer in record}
    assert record.skipped["wpe"] == "its output (1, 7, 8) for 4 samples is shared by all samples of the batch"
    assert all((layer.N, layer.kets, layer.d) == (10, 70, 8) for layer in record)
    conv = study(network, {"input_ids": ids}, layers="h.0.mlp.c_fc")["h.0.mlp.c_fc"]
    assert (conv.kind, conv.d, conv.info.axis, conv.kets) == ("Conv1D", 32, 2, 70)


def test_all_names_every_module_that_puts_out_a_tensor() -> None:
    record = study(_mlp(), torch.randn(20, 5), layers="all")
    # Dropout returns its input in evaluation: one row, and an alias.
    assert [(layer.name, layer.aliases) for layer in record] == [("0", ()), ("1", ("2",)), ("3", (ROOT,))]
    assert record.skipped == {}


def test_every_module_left_out_has_its_reason() -> None:
    record = study(ByAttributes(), torch.randn(6, 3, 8, 8))
    assert record.skipped == {
        f"{block}.bn1": "BatchNorm2d rescales the layer before it" for block in ("first", "second")
    }


def test_modules_that_never_ran_are_named() -> None:
    network = _mlp()
    network.add_module("4", nn.Identity())
    record = study(network, torch.randn(20, 5), layers=["0", "4"], forward=lambda net, x: net[0](x))
    assert [layer.name for layer in record] == ["0"]
    assert record.skipped == {"4": "it never ran in the forward pass"}


class T5LayerNorm(nn.Module):
    """A norm that is none of PyTorch's, as transformers have."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * x.square().mean(-1, keepdim=True).rsqrt()


class NormAct(nn.BatchNorm1d):
    """A norm with its activation function in it, as timm has."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class FusedNorm(NormAct):
    """The same under a norm's name."""


class NormRelu(nn.BatchNorm1d):
    """The same without a module for it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


def test_a_norm_is_one_by_what_it_does_and_not_by_its_class_alone() -> None:
    linear = nn.Linear
    net = nn.Sequential(
        *(linear(6, 6), T5LayerNorm(6)), *(linear(6, 6), NormAct(6)), *(linear(6, 6), FusedNorm(6)),
        *(linear(6, 6), NormRelu(6)), *(linear(6, 6), nn.BatchNorm1d(6)),
    )  # fmt: skip
    chosen = select(net)
    assert list(chosen.chosen) == ["(model)", "0", "2", "3", "4", "5", "6", "7", "8"]
    assert chosen.skipped == {
        "1": "T5LayerNorm rescales the layer before it",
        "3.act": "a part of 3 (NormAct)",
        "5.act": "a part of 5 (FusedNorm)",
        "9": "BatchNorm1d rescales the layer before it",
    }


class Adapted(nn.Module):
    """A linear layer with a low-rank addition, as peft wraps it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


class TwoAttentions(nn.Module):
    """A decoder's block: two attentions of one class are no blocks of their own, wrapped layers neither."""

    def __init__(self, wrap: type[nn.Module]) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = Mixing(wrap), Mixing(wrap)
        self.out = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cross_attention(self.self_attention(x)))


class Mixing(nn.Module):
    def __init__(self, wrap: type[nn.Module]) -> None:
        super().__init__()
        self.query, self.value = wrap(nn.Linear(6, 6)), wrap(nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.query(x).tanh() * self.value(x)


class Plain(nn.Sequential):
    """Wraps nothing."""


def test_blocks_are_the_same_with_adapters_and_inside_them_nothing_is_one() -> None:
    nets = [nn.Sequential(*(TwoAttentions(wrap) for _ in range(2))) for wrap in (Plain, Adapted)]
    for net in nets:
        assert select(net).blocks == {"0", "1"}
    adapted = select(nets[1])
    names = [
        name
        for block in ("0", "1")
        for name in (block, *(f"{block}.{part}" for part in ("self_attention", "cross_attention", "out")))
    ]
    assert list(adapted.chosen) == ["(model)", *names]
    assert (
        adapted.skipped["0.self_attention.query.base_layer"] == "a part of 0.self_attention.query (Adapted)"
    )


class DropPath(nn.Module):
    """As in timm and transformers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(len(x), 1) if self.training else x


def test_stochastic_depth_does_nothing_in_evaluation() -> None:
    record = study(nn.Sequential(nn.Linear(5, 4), DropPath(), nn.Linear(4, 3)), torch.randn(20, 5))
    assert [layer.name for layer in record] == ["0", "2"]
    assert record.skipped == {"1": "DropPath does nothing in evaluation"}


class Stage(nn.Module):
    """Blocks as attributes, as RegNet has them."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        for i in range(depth):
            self.add_module(f"b{i}", Residual(8))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.children():
            x = block(x)
        return x


def test_a_stage_of_a_single_block() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), Stage(1), Stage(2))
    assert select(network).blocks == {"1", "1.b0", "2", "2.b0", "2.b1"}
