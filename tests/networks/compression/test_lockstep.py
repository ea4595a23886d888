"""Networks in step: the same numbers as a plain forward pass, meetings in order, and errors from any thread."""

import threading

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.compression.lockstep import run_in_step


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right, self.last = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.last(h + self.left(h) * torch.tanh(self.right(h)))


ORDER = ["first", "left", "right", "last"]


def networks(n: int) -> list[Residual]:
    torch.manual_seed(0)
    return [Residual().requires_grad_(False) for _ in range(n)]


def test_all_meet_at_every_layer_with_what_a_plain_pass_gives_it() -> None:
    nets, batches = networks(3), [torch.randn(n, 4) for n in (5, 1, 8)]
    met: list[str] = []
    given: dict[str, list[list[Tensor]]] = {}

    def meet(path: str, inputs: list[list[Tensor]]) -> None:
        met.append(path)
        given[path] = inputs

    calls = [lambda net, x=x: net(x) for x in batches]
    assert run_in_step(nets, calls, ORDER, meet) == set()
    assert met == ORDER
    for n, net in enumerate(nets):
        for i, x in enumerate(batches):
            h = torch.relu(net.first(x))
            last = h + net.left(h) * torch.tanh(net.right(h))
            for path, expected in zip(ORDER, [x, h, h, last], strict=True):
                torch.testing.assert_close(given[path][n][i], expected, atol=0, rtol=0)
        assert not any(module._forward_pre_hooks for module in net.modules())


def test_after_the_last_layer_nothing_is_computed() -> None:
    nets, computed = networks(2), []
    for net in nets:
        for path, module in net.named_children():
            module.register_forward_hook(lambda *_, path=path: computed.append(path))
    threads = threading.active_count()
    run_in_step(nets, [lambda net: net(torch.zeros(2, 4))] * 3, ["first", "left"], lambda *_: None)
    assert computed == ["first"] * 6
    assert threading.active_count() <= threads


def test_weights_changed_at_a_meeting_are_what_follows_sees() -> None:
    (net,), x = networks(1), torch.randn(3, 4)
    seen: list[Tensor] = []

    def meet(path: str, inputs: list[list[Tensor]]) -> None:
        if path == "first":
            net.first.weight.zero_()
            net.first.bias.fill_(2)
        if path == "last":
            seen.extend(inputs[0])

    with torch.no_grad():
        net.left.weight.zero_()
        net.left.bias.zero_()
        run_in_step([net], [lambda model: model(x)], ORDER, meet)
    # The residual branch is 0, and what is added to it is what the first layer now puts out.
    torch.testing.assert_close(seen, [torch.full((3, 4), 2.0)])


@pytest.mark.parametrize("where", [0, 1, 2])
def test_an_error_in_one_pass_ends_all_and_is_raised(where: int) -> None:
    nets, threads = networks(2), threading.active_count()

    def call(i: int):
        def run(net: nn.Module) -> None:
            if i == where and net is nets[1]:
                net.first(torch.zeros(2, 4))
                raise RuntimeError(f"broken in {i}")
            net(torch.zeros(2, 4))

        return run

    with pytest.raises(RuntimeError, match=f"broken in {where}"):
        run_in_step(nets, [call(i) for i in range(3)], ORDER, lambda *_: None)
    assert threading.active_count() <= threads
    assert not any(module._forward_pre_hooks for net in nets for module in net.modules())


def test_an_error_at_a_meeting_ends_all_even_a_network_that_catches_everything() -> None:
    class Stubborn(Residual):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return super().forward(x)
            except Exception:  # noqa: BLE001  what is tested
                return x

    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        run_in_step([Stubborn()], [lambda net: net(torch.zeros(2, 4))] * 3, ORDER, lambda *_: 1 // 0)
    assert threading.active_count() <= threads


def test_layers_that_run_in_different_order_are_missed_and_the_passes_end() -> None:
    class Switch(Residual):
        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            h = self.left(self.right(h)) if float(x.sum()) > 0 else self.right(self.left(h))
            return self.last(h)

    torch.manual_seed(0)
    net, batches = Switch().requires_grad_(False), [torch.ones(2, 4), -torch.ones(2, 4)]
    met: dict[str, list[Tensor]] = {}
    missed = run_in_step(
        [net],
        [lambda model, x=x: model(x) for x in batches],
        ORDER,
        lambda path, given: met.update({path: given[0]}),
    )
    assert [*met][:: len(met) - 1] == ["first", "last"]
    assert missed == set(ORDER) - met.keys()
    assert missed
    h = [net.first(x) for x in batches]
    expected = [net.left(net.right(h[0])), net.right(net.left(h[1]))]
    torch.testing.assert_close(met["last"], expected, atol=0, rtol=0)


def test_where_the_last_layer_is_missed_the_passes_end_by_themselves() -> None:
    class Sometimes(Residual):
        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x)
            return self.last(h) if float(x.sum()) > 0 else h

    net, batches, done = Sometimes(), [torch.ones(2, 4), -torch.ones(2, 4)], []
    calls = [lambda model, x=x: done.append(model(x)) for x in batches]
    assert run_in_step([net], calls, ["first", "last"], lambda *_: None) == {"last"}
    for x, y in zip(batches[::-1], done, strict=True):
        torch.testing.assert_close(net(x), y, atol=0, rtol=0)
