"""What the predictions do not depend on goes first, at no cost; what only seems to be dead stays."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.compression import load_compressed


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_same(a: nn.Module, b: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(b(x), a(x), atol=1e-5, rtol=1e-5)


X = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
NEW = torch.randn(50, 24, generator=torch.Generator().manual_seed(1))


class Branches(nn.Module):
    """Two branches side by side, one of which a ReLU wipes out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.live, self.side = nn.Linear(24, 32), nn.Linear(32, 32), nn.Linear(32, 40)
        self.last = nn.Linear(72, 5)
        self.wiped = nn.ReLU()
        with torch.no_grad():
            self.side.bias.fill_(-100.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(torch.cat([self.wiped(self.side(x)), self.live(x).relu()], 1))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(24), nn.Linear(24, 48), nn.Linear(48, 24, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def residual() -> nn.Sequential:
    """Block 1 has an activation that is constant, block 2 multiplies by 0."""
    torch.manual_seed(0)
    net = nn.Sequential(*(Block() for _ in range(4)), nn.Linear(24, 6))
    with torch.no_grad():
        net[1].up.bias.fill_(-50.0)
        net[2].down.weight.zero_()
    return net.eval()


@pytest.fixture(scope="module")
def branches() -> Branches:
    torch.manual_seed(0)
    return Branches().eval()


def test_a_branch_that_an_activation_wipes_out_keeps_one_unit(branches: Branches, tmp_path: Path) -> None:
    result = kw.compress(branches, X, keep=0.95)
    small = result.model
    assert (small.side.out_features, small.last.in_features) == (1, 33)
    removed = 39 * (32 + 1) + 39 * 5
    assert result.after.parameters == counted(branches) - removed
    assert result.kl < 1e-11
    assert_same(branches, small, NEW)
    assert result.dead == {"side": "narrowed to 1 of 40 units at no cost"}
    table = result.table().set_index("layer")
    assert table.loc["side", ["shape", "units", "reason"]].tolist() == [
        "40 × 32", 1, "dead: narrowed to 1 of 40 units at no cost"
    ]  # fmt: skip
    assert table.loc["last", ["shape", "reason"]].tolist() == ["5 × 72", "reads what is left of side"]
    result.save(tmp_path / "small.safetensors")
    assert_same(small, load_compressed(str(tmp_path / "small.safetensors"), Branches()), NEW)
    exported = torch.export.export(small, (NEW,)).module()
    torch.testing.assert_close(exported(NEW), small(NEW))


def test_what_is_dead_is_not_in_the_way_of_what_it_reads(branches: Branches) -> None:
    without = nn.Sequential(branches.first, nn.ReLU(), branches.live, nn.ReLU(), nn.Linear(32, 5)).eval()
    with torch.no_grad():
        without[4].weight.copy_(branches.last.weight[:, 40:])
        without[4].bias.copy_(branches.last.bias)
    result = kw.compress(branches, X, keep=1500 / counted(branches))
    alone = kw.compress(without, X, keep=1450 / counted(without))
    kls = [{tried.name: tried.kl for tried in one.candidates} for one in (result, alone)]
    for name in ("two-sided", "removal", "removal and ranks"):
        assert kls[0][name] < 1.3 * kls[1][name]


def test_a_layer_that_alone_may_change_becomes_a_constant(branches: Branches) -> None:
    result = kw.compress(branches, X, max_kl=1e-3, layers="side")
    assert [tuple(part.weight.shape) for part in result.model.side] == [(1, 32), (40, 1)]
    assert result.after.parameters == counted(branches) - 40 * 33 + 32 + 40 + 40
    assert_same(branches, result.model, NEW)
    assert result.dead == {"side": "its output is a constant, kept in the bias at no cost"}


def test_dead_residual_blocks_go_and_the_floor_is_that_of_the_others() -> None:
    net = residual()
    total, block = counted(net), counted(net[1])
    result = kw.compress(net, X, keep=1.0)
    norm = 48
    assert [counted(result.model[i]) for i in (0, 3)] == [block, block]
    # One unit: 24 weights and a bias that put it out, 24 that read it, and what the others gave in a bias.
    assert [counted(result.model[i]) for i in (1, 2)] == [norm + 25 + 48, norm + 25 + 48]
    assert_same(net, result.model, NEW)
    least = []
    for one in (net, nn.Sequential(net[0], net[3], net[4]).eval()):
        with pytest.raises(ValueError, match="must be at least") as refused:
            kw.compress(one, X, keep=0.001)
        share, fixed = (float(n) for n in re.findall(r"(\d\.\d+) (?:of|are)", str(refused.value)))
        least.append((share * counted(one), fixed * counted(one)))
    extra = 2 * (norm + 25 + 48)
    assert least[0][0] == pytest.approx(least[1][0] + extra, abs=0.002 * total)
    assert least[0][1] == pytest.approx(least[1][1] + 2 * norm, abs=0.002 * total)


def test_a_dead_branch_of_channels() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.wide, self.back = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 1)
            self.scaled = nn.BatchNorm2d(32)
            self.head = nn.Linear(16 * 16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x)).relu()
            x = x + self.back(self.scaled(self.wide(x)).relu())
            return self.head(nn.functional.max_pool2d(x, 2).flatten(1))

    torch.manual_seed(0)
    net = Net()
    x = torch.randn(120, 1, 8, 8)
    for _ in range(3):
        net(x)
    net.eval()
    with torch.no_grad():
        net.scaled.bias.fill_(-30.0)
    result = kw.compress(net, x, keep=0.95)
    small = result.model
    # One channel, whose patches come in two convolutions of rank 1, since it is a constant too.
    assert [tuple(part.weight.shape) for part in small.wide] == [(1, 16, 1, 1), (1, 1, 3, 3)]
    assert small.back.in_channels == 1
    norms = 2 * 16 + 2 * 32
    assert result.after.parameters == counted(net) - norms - 32 * (16 * 9 + 1) + 16 + 9 + 1 - 31 * 16
    assert_same(net, small, torch.randn(20, 1, 8, 8))
    # Where its reader may not change, a rank of 1 is left, of the form that is smallest.
    alone = kw.compress(net, x, keep=0.95, layers="wide")
    assert counted(alone.model.wide) == min(16 * 9 + 32 + 32, 16 + 32 * 9 + 32, 16 * 3 + 32 * 3 + 32)
    assert_same(net, alone.model, torch.randn(20, 1, 8, 8))


def test_dead_heads_keep_one() -> None:
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        net.self_attn.out_proj.weight.zero_()
    x = torch.randn(60, 6, 16)
    model = nn.Sequential(net, nn.Linear(16, 16)).eval()
    result = kw.compress(model, x, keep=0.95)
    assert counted(result.model[0].self_attn) == 3 * (16 + 4 + 4) + 4 + 16 + 16
    with torch.no_grad():
        torch.testing.assert_close(result.model(x), model(x), atol=1e-5, rtol=1e-5)


def test_without_gradients_a_dead_activation_is_seen_by_its_readers(branches: Branches) -> None:
    def detached(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).detach()

    result = kw.compress(branches, X, keep=0.95, forward=detached)
    assert not result.settings["gradients"]
    assert result.dead == {"side": "narrowed to 1 of 40 units at no cost"}
    assert_same(branches, result.model, NEW)


def test_a_dead_recurrent_network_keeps_one_unit() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.live, self.idle = (nn.GRU(8, 12, batch_first=True) for _ in range(2))
            self.head = nn.Linear(24, 3)
            nn.init.zeros_(self.head.weight[:, 12:])

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.live(x)[0][:, -1], self.idle(x)[0][:, -1]], 1))

    torch.manual_seed(0)
    net = Net().eval()
    result = kw.compress(net, torch.randn(100, 5, 8), keep=0.95)
    # Three gates of one unit: their inputs in two factors of rank 1, and 3 weights and biases of its state.
    assert counted(result.model.idle) == 8 + 3 + 3 + 3 + 3
    assert result.dead == {"idle": "narrowed to 1 of 12 blocks of 3 units at no cost"}
    assert_same(net, result.model, torch.randn(20, 5, 8))


class Routed(nn.Module):
    """Which of two scales is taken depends on the sign of `gate`, through which no gradient comes."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.body, self.head = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) * self.gate(x).sign())


def test_a_gradient_of_0_is_no_proof() -> None:
    torch.manual_seed(0)
    net = Routed().eval()
    result = kw.compress(net, X, keep=0.95)
    assert result.dead == {}
    assert counted(result.model.gate) > 24 + 24 + 24  # more than a constant
    lost = (result.model(NEW) - net(NEW)).square().mean() / net(NEW).var()
    assert lost < 0.3


def test_what_only_other_outputs_depend_on_stays() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.logits, self.other = nn.Linear(24, 32), nn.Linear(32, 5), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = self.body(x).relu()
            return {"logits": self.logits(x), "other": self.other(x)}

    torch.manual_seed(0)
    net = Two().eval()
    result = kw.compress(net, X, keep=0.9)
    assert torch.equal(result.model.other.weight, net.other.weight)
    reasons = result.table().set_index("layer")["reason"]
    assert reasons["other"] == "only outputs besides the predictions depend on it"


def test_dead_neurons_among_others_go_before_all_else() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 5)).eval()
    with torch.no_grad():
        net[0].bias[:40] = -100.0
    left = 24 * 25 + 24 * 5 + 5
    result = kw.compress(net, X, keep=(left + 1) / counted(net))
    assert (result.after.parameters, result.model[0].out_features) == (left, 24)
    assert result.kl < 1e-10
    assert_same(net, result.model, NEW)
