"""Capture leaves the network exactly as it was, and sees it whatever wraps it."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from ketwork.networks.activations.captures import capture
from ketwork.networks.activations.info import Activation
from ketwork.networks.study.result import Study
from ketwork.networks.study.run import StudyError, StudyInterrupted, study


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Sequential(nn.Linear(6, 3)),
    )


def _hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._forward_hooks_with_kwargs)
        for module in model.modules()
    )


def _flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


class Failing(IterableDataset[Tensor]):
    """Two samples, then whatever is wrong."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.ones(2, 5)
        raise self.failure


def _mixed(model: nn.Module) -> nn.Module:
    model.train()
    model[1].eval()
    model[4][0].eval()
    return model


@pytest.mark.parametrize(
    "failure", [None, ValueError("bad row"), KeyboardInterrupt()], ids=["none", "error", "ctrl-c"]
)
@pytest.mark.parametrize("grad", [True, False])
def test_the_network_is_as_it_was(failure: BaseException | None, grad: bool) -> None:
    network = _mixed(_network())
    mine = network[0].register_forward_hook(lambda *_: None)
    flags, state = _flags(network), {k: v.clone() for k, v in network.state_dict().items()}
    data = torch.randn(10, 5) if failure is None else Failing(failure)
    ended = (
        contextlib.nullcontext()
        if failure is None
        else pytest.raises(StudyInterrupted if isinstance(failure, KeyboardInterrupt) else StudyError)
    )
    with torch.set_grad_enabled(grad), ended as caught:
        study(network, data, batch_size=2)
    with torch.set_grad_enabled(grad):
        assert torch.is_grad_enabled() is grad
    assert _flags(network) == flags
    assert _hooks(network) == 1
    mine.remove()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    if failure is not None:
        assert caught is not None
        record = caught.value.partial
        assert isinstance(record, Study)
        assert (record.complete, record.samples, record["0"].N) == (False, 2, 2)
        if isinstance(failure, KeyboardInterrupt):
            assert record.error == "interrupted"
        else:
            assert record.error == "ValueError: bad row"
            assert caught.value.__cause__ is failure


def test_an_interrupt_before_anything_was_gathered() -> None:
    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(StudyInterrupted) as caught:
        study(_network(), torch.randn(10, 5), forward=forward)
    assert caught.value.partial is None


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_outputs_are_the_networks_own(mode: type) -> None:
    network, x = _network().eval(), torch.randn(10, 5)
    with torch.no_grad():
        plain = network(x)
    with mode():
        outer = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with capture(network, "all", receive=lambda activation: None) as live:
            seen = live.forward(lambda model: model(x), samples=10)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == outer
    assert torch.equal(seen, plain)
    assert not seen.requires_grad


def test_exceptions_inside_the_capture_take_the_hooks_off() -> None:
    network = _mixed(_network())
    flags = _flags(network)

    def fail(activation: Activation) -> None:
        raise RuntimeError("in the hook")

    with pytest.raises(RuntimeError, match="in the hook"), capture(network, receive=fail) as live:
        live.forward(lambda model: model(torch.randn(4, 5)), samples=4)
    assert (_hooks(network), _flags(network)) == (0, flags)


def test_a_tensor_of_two_modules_is_one_row() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.Identity()), nn.Sequential(nn.Linear(4, 3)))
    record = study(network, torch.randn(9, 5), layers="all")
    # Named by the outermost module around the one that computed it, short of the whole network.
    assert [(layer.name, layer.aliases) for layer in record] == [
        ("0", ("0.0", "0.1")), ("1", ("1.0", "(model)")),
    ]  # fmt: skip


class InferenceInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.relu = nn.ReLU(inplace=True)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.linear(x))


def test_in_place_operations_in_inference_mode_make_a_row_of_their_own() -> None:
    torch.manual_seed(0)
    network, x = InferenceInside(), torch.randn(30, 5)
    record = study(network, x)
    assert [layer.name for layer in record][:2] == ["linear", "relu"]
    assert record["linear"].norm.value == pytest.approx(
        float(network.linear(x).detach().norm(dim=-1).mean()), rel=1e-6
    )
    assert record["relu"].norm.value < record["linear"].norm.value


def _numbers(record: Study) -> list[tuple[object, ...]]:
    """All of a study's values; NaN as a word, for it equals nothing."""
    return [
        (
            layer.name,
            layer.call,
            layer.kind,
            layer.N,
            layer.kets,
            *(f"{e.value!r}" for e in layer.estimates.values()),
        )
        for layer in record
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_networks(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 16), nn.ReLU()).to(dtype)
    data = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0))
    row = study(network, data.numpy())["1"]  # NumPy's numbers become what the network takes
    assert row.density.matrix().dtype == torch.float64
    outputs = network(data.to(dtype)).detach().double()
    kets = outputs[outputs.norm(dim=-1) > 0]
    kets = kets / kets.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(row.density.matrix(), kets.T @ kets / len(kets), rtol=0, atol=1e-7)
