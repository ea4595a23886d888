"""What is counted is what there is: parameters, multiply-adds, seconds."""

import re
import time

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import ketwork as kw
from ketwork.networks.compression import budgets
from ketwork.networks.compression.costs import latencies, multiply_adds, multiply_adds_within
from ketwork.networks.compression.forms import Form
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.survey import Survey, Surveyed


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(48 * 16, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


X = torch.randn(60, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.9])
def test_parameters_are_those_of_the_network_and_within_the_budget(keep: float) -> None:
    net = convolutional()
    result = kw.compress(net, X, keep=keep)
    true = sum(p.numel() for p in result.model.parameters())
    assert result.after.parameters == true <= keep * result.before.parameters
    assert result.before.parameters == sum(p.numel() for p in net.parameters())
    table = result.table()
    assert (table["parameters"].sum(), table["parameters_before"].sum()) == (true, result.before.parameters)
    ranks = table["rank"].dropna()
    assert (ranks % 8 == 0).all()
    for row in table[table["rank"].notna()].itertuples():
        first, second = result.model.get_submodule(row.layer)
        assert len(first.weight) == row.rank == second.weight.shape[1]


@pytest.mark.parametrize("keep", [0.4, 0.8])
def test_multiply_adds_are_those_of_the_flop_counter_and_within_the_budget(keep: float) -> None:
    result = kw.compress(convolutional(), X, keep=keep, cost="macs")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result.model(X)
    assert result.after.multiply_adds == counter.get_total_flops() / 2 / 60
    assert result.after.multiply_adds <= keep * result.before.multiply_adds
    table = result.table()
    for when in ("_before", ""):
        of = result.before if when else result.after
        assert table[f"multiply_adds{when}"].sum() == pytest.approx(of.multiply_adds)


def test_the_fused_layers_of_torchs_encoder_are_counted() -> None:
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(4, 5, 16)
    linear = 5 * (3 * 16 * 16 + 16 * 16 + 2 * 16 * 32)
    attention = 2 * 5 * 5 * 16
    assert multiply_adds(lambda: net(x), 4) == linear + attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_multiply_adds_module_by_module_with_one_inside_another_and_one_called_twice() -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    x = torch.ones(2, 4)
    found = multiply_adds_within(lambda: inner(inner(x)), 2, {"all": inner, "first": inner[0]})
    assert found == {"all": 64.0, "first": 32.0, "": 64.0}
    assert not inner._forward_hooks
    assert not inner[0]._forward_pre_hooks


class _Products(TorchDispatchMode):
    """Counts matrix products: a stand-in for what a machine spends on starting one."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func.overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.mm)
        return func(*args, **(kwargs or {}))


def machine(calls, **_) -> list[float]:
    """The seconds of calls on a machine of 10⁹ multiply-adds a second that takes 20 µs to start a product."""
    times = []
    for call in calls:
        with torch.no_grad(), _Products() as products:
            call()
        times.append(1e-9 * multiply_adds(call, 1) + 20e-6 * products.n)
    return times


def test_latency_rejects_factors_that_are_slower_than_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "latencies", machine)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 32))
    x = torch.randn(
        40, 256
    )  # 32 in the first batch: 2.1 ms for the first layer, 0.03 ms and a start for the last
    total = machine([lambda: net(x[:32])])[0]
    for keep in (0.5, 0.7):
        result = kw.compress(net, x, keep=keep, cost="latency")
        assert result.table()["rank"].isna().tolist()[1:] == [True, True]
        cost = next(tried.cost for tried in result.candidates if tried.name == result.chosen)
        assert cost == pytest.approx(machine([lambda: result.model(x[:32])])[0])  # noqa: B023
        assert cost <= keep * total
    least = float(
        re.search(
            r"at least ([\d.]+) of the latency",
            str(refused(lambda: kw.compress(net, x, keep=0.01, cost="latency"))),
        )[1]
    )
    assert kw.compress(net, x, keep=least, cost="latency").table()["rank"].isna()[2]


def test_a_network_timed_to_be_too_slow_is_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def crowded(calls, **_) -> list[float]:  # products in one call hinder each other: no layer alone shows it
        times = []
        for call in calls:
            with torch.no_grad(), _Products() as products:
                call()
            times.append(1e-9 * multiply_adds(call, 1) + 20e-6 * products.n**2)
        return times

    monkeypatch.setattr(budgets, "latencies", crowded)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32))
    x = torch.randn(40, 256)
    total = crowded([lambda: net(x[:32])])[0]
    result = kw.compress(net, x, keep=0.6, cost="latency")
    costs = {tried.name: tried.cost / total for tried in result.candidates}
    assert max(costs.values()) <= 0.6 * 1.02, costs


def refused(call) -> ValueError:
    with pytest.raises(ValueError, match="Argument `keep` must be at least") as caught:
        call()
    return caught.value


def test_latencies_are_the_least_that_a_clock_shows_in_the_order_of_the_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, ran = 0.0, [0, 0]

    def call(which: int, seconds: float) -> None:
        nonlocal now
        ran[which] += 1
        now += seconds * (3 if ran[which] in (1, 3) else 1)  # what else a machine does only adds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    found = latencies([lambda: call(0, 0.001), lambda: call(1, 0.004)], repeats=3)
    assert found == pytest.approx([0.001, 0.004])
    assert ran == [4, 4]
    found = latencies([lambda: call(0, 0.001), lambda: call(1, 0.004)], repeats=2, least=0.008)
    assert found == pytest.approx([0.001, 0.004])
    assert ran == [4 + 1 + 2 * 8, 4 + 1 + 2 * 2]


def test_a_latency_rises_with_the_rank() -> None:
    ((layer,), _) = weight_layers(nn.Sequential(nn.Linear(256, 256)))
    survey = Survey({layer.path: Surveyed("outputs", shape=(64, 256))})
    prices = budgets._timed(layer, survey, 8)
    times = [prices[Form("outputs", rank)] for rank in range(8, 128, 8)]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1]
