"""Networks are seen whatever wraps them: compilers, data-parallel training, TorchScript, which is refused."""

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.study.result import Study
from ketwork.networks.study.run import study


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Sequential(nn.Linear(6, 3)),
    )


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


class Twice(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(torch.relu(self.inner(x))))


@pytest.mark.parametrize("how", ["whole", "part", "in place", "part in place"])
def test_compiled_networks_give_the_same_study(how: str) -> None:
    torch.manual_seed(0)
    network, x = Twice(nn.Linear(5, 5)), torch.randn(20, 5)
    plain = _numbers(study(network, x))
    assert len(plain) == 3
    if how == "whole":
        compiled = torch.compile(network, backend="eager")
    elif how == "part":
        network.inner = torch.compile(network.inner, backend="eager")
        compiled = network
    else:
        (network if how == "in place" else network.inner).compile(backend="eager")
        compiled = network
    with torch.no_grad():
        compiled(x)  # compiled before the study, as it would be in use
    assert _numbers(study(compiled, x)) == plain
    assert _numbers(study(compiled, x, layers=["inner", "out"])) == plain


def test_data_parallel_networks_are_looked_through() -> None:
    network, x = _network(), torch.randn(20, 5)
    assert _numbers(study(nn.DataParallel(network), x)) == _numbers(study(network, x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", [torch.jit.script, lambda net: torch.jit.trace(net, torch.ones(2, 5))])
def test_torchscript_is_refused(how: object) -> None:
    scripted = how(nn.Sequential(nn.Linear(5, 3)))  # type: ignore[operator]
    with pytest.raises(
        TypeError, match="Argument `model` is a TorchScript module, which refuses forward hooks"
    ):
        study(scripted, torch.randn(4, 5))
    record = study(nn.Sequential(nn.Linear(5, 5), scripted), torch.randn(4, 5))
    assert record.skipped["1"] == "TorchScript refuses hooks"
    assert [layer.name for layer in record] == ["0", "(model)"]


def test_a_function_is_no_network() -> None:
    with pytest.raises(TypeError, match=r"Argument `model` must be a torch.nn.Module, but is a function"):
        study(lambda x: x, torch.randn(4, 5))  # type: ignore[arg-type]


def test_no_device_asked_for_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was moved")

    network = _network()
    monkeypatch.setattr(network, "to", refuse)
    assert study(network, torch.randn(6, 5)).complete


def test_an_exported_program_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    module = torch.export.export(net, (torch.ones(2, 4),)).module()
    with pytest.raises(
        TypeError, match=r"exported program \(torch.export\), which shows no module inside it"
    ):
        study(module, torch.ones(2, 4))
