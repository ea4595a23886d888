"""Training after the cut: towards the original, and of nothing that is shared with it or has 8 bits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.compression.calibration import Calibration, calibrate
from ketwork.networks.compression.costs import EIGHT_BITS
from ketwork.networks.compression.healing import healed
from ketwork.networks.compression.reductions import rounded_to_bits

X = torch.randn(1500, 20, generator=torch.Generator().manual_seed(0))
NEW = torch.randn(1000, 20, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5)
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for layer in net[::2]:
            layer.weight.mul_(3)
    return net.eval()


def kl(net: Callable[[Tensor], Tensor], small: Callable[[Tensor], Tensor]) -> float:
    with torch.no_grad():
        p, q = (model(NEW).double().log_softmax(-1) for model in (net, small))
    return float((p.exp() * (p - q)).sum(-1).mean())


def calibration(net: nn.Module) -> Calibration:
    result = calibrate(net, X, samples=None, batch_size=50, loss="kl")
    result.remember(net, 2**20)
    return result


def test_it_helps_on_data_that_nothing_was_fitted_to() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    plain, result = (kw.compress(net, X, keep=0.4, loss="kl", heal=steps) for steps in (0, 200))
    assert result.chosen.endswith(", healed")
    assert result.kl == min(one.kl for one in result.candidates)
    assert kl(net, result.model) < 0.95 * kl(net, plain.model)
    assert result.after.parameters == plain.after.parameters
    assert result.settings["heal"] == 200
    assert result.passes > plain.passes
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())


def test_where_no_step_does_better_nothing_changes() -> None:
    net, small = network(), network()  # of no distance
    result = healed(net, small, calibration(net), 20)
    for a, b in zip(result.parameters(), small.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rate", [0.3, 3.0])
def test_where_steps_are_too_large_they_are_made_smaller(
    monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    net, small = network(), network()
    with torch.no_grad():
        small[4].weight.add_(0.1 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(
        "ketwork.networks.compression.healing._RATE", rate
    )  # of the weights themselves, a step
    assert kl(net, healed(net, small, calibration(net), 200)) < 0.5 * kl(net, small)


def test_what_is_shared_and_what_has_8_bits_stays() -> None:
    net, small = network(), network()
    small[0] = net[0]
    with torch.no_grad():
        small[2].weight.copy_(rounded_to_bits(small[2].weight))
        small[4].weight.add_(0.3 * torch.randn(5, 64))
    setattr(small[2], EIGHT_BITS, True)
    result = healed(net, small, calibration(net), 200)
    assert torch.equal(result[0].weight, net[0].weight)
    assert torch.equal(result[2].weight, small[2].weight)
    assert not torch.equal(result[4].weight, small[4].weight)
    assert kl(net, result) < 0.5 * kl(net, small)
    again = healed(net, small, calibration(net), 200)
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="Argument `heal` must be an integer of at least 0, but is -1"):
        kw.compress(network(), X, keep=0.5, heal=-1)

    def detached(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).detach()

    with pytest.raises(ValueError, match="Argument `heal` must be 0 for a network whose predictions have no"):
        kw.compress(network(), X, keep=0.6, heal=5, forward=detached)
