"""What cannot be done is refused with what can; what is unsure is said; what is given stays as it was."""

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


X = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("samples", [1, 4])
def test_too_few_samples_to_choose_by(samples: int) -> None:
    with pytest.raises(
        ValueError, match=rf"Argument `data` must hold at least 5 samples, .* holds {samples}\. Give"
    ):
        kw.compress(mlp(), X[:samples], keep=0.6)


def test_fewer_samples_than_features_is_said_and_still_exact_on_those() -> None:
    net, x = mlp(), X[:25]
    result = kw.compress(net, x, keep=0.6)
    (warning,) = result.warnings
    assert "Fewer inputs than features were seen of 2 (20 for 64)" in warning
    assert warning in str(result)
    assert all(bool(torch.isfinite(p).all()) for p in result.model.parameters())
    assert kw.compress(net, X, keep=0.6).warnings == ()


def test_inputs_of_low_rank_and_constant_ones() -> None:
    net = mlp()
    flat = X[:, :2] @ torch.randn(2, 30, generator=torch.Generator().manual_seed(1))
    result = kw.compress(net, flat, keep=0.6)
    assert result.kl < 1e-4
    constant = kw.compress(net, torch.ones(100, 30), keep=0.6)
    assert constant.kl < 1e-9
    assert constant.warnings[0].startswith("The original predicts the same for all data held back")
    torch.testing.assert_close(
        constant.model(torch.ones(1, 30)), net(torch.ones(1, 30)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("sample", "told"), [(70, "layer '0' puts out NaN .* in batch 1"), (74, "held back gives NaN")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_is_not_finite_wherever_it_is(sample: int, told: str, value: float) -> None:
    x = X.clone()
    x[sample, 3] = value
    with pytest.raises(
        ValueError, match=rf"Argument `data` must give finite (values|predictions), but .*{told}"
    ):
        kw.compress(mlp(), x, keep=0.6)


def test_a_network_whose_weights_are_not_finite() -> None:
    net = mlp()
    nn.init.constant_(net[2].weight, float("nan"))
    with pytest.raises(ValueError, match="finite"):
        kw.compress(net, X, keep=0.6)


@pytest.mark.parametrize("cost", ["parameters", "macs"])
def test_a_budget_that_cannot_be_met_says_what_can(cost: str) -> None:
    with pytest.raises(ValueError, match=f"Argument `keep` must be at least .* of the {cost}") as refused:
        kw.compress(mlp(), X, keep=0.01, cost=cost)
    least = float(re.search(r"at least ([\d.]+) of", str(refused.value))[1])  # type: ignore[index]
    result = kw.compress(mlp(), X, keep=least, cost=cost)
    kept = {
        "parameters": result.after.parameters / result.before.parameters,
        "macs": result.after.multiply_adds / result.before.multiply_adds,
    }[cost]
    assert kept <= least
    with pytest.raises(ValueError, match="must be at least"):
        kw.compress(mlp(), X, keep=least - 0.001, cost=cost)


def test_a_bound_that_cannot_be_met_says_what_can() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(30, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 5))
    for _ in range(5):
        net(3 * X + 1)
    with pytest.raises(ValueError, match=r"The least KL of any is [\d.]+e-\d+ nats a prediction") as refused:
        kw.compress(net, X, max_kl=0.0)
    least = float(re.search(r"any is (\S+) nats", str(refused.value))[1])  # type: ignore[index]
    assert least < 1e-8  # folding BatchNorm rounds otherwise
    assert kw.compress(net, X, max_kl=1e-7).kl <= 1e-7


class Raw(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.randn(64, 64) / 8)
        self.unused = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.mixing


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), r"but has none\.$"),
        (lambda: nn.Sequential(nn.LayerNorm(30)), r"\(0: normalisations are left\)"),
        (lambda: nn.Linear(30, 30), r"\(\(model\): it is the whole network\)"),
        (lambda: nn.Sequential(nn.Linear(30, 64), Raw())[1:2], "mixing.*never called|never called.*mixing"),
    ],
)
def test_no_layer_that_can_be_compressed(build: Callable[[], nn.Module], told: str) -> None:
    x = torch.randn(50, 64) if "mixing" in told else X[:50]
    with pytest.raises(
        ValueError, match="must have a linear layer or a convolution that can be compressed"
    ) as refused:
        kw.compress(build(), x, keep=0.5)
    assert re.search(told, str(refused.value), flags=re.DOTALL)


def test_raw_parameters_and_layers_that_never_ran_are_left_alone_and_listed() -> None:
    base = mlp()
    net = nn.Sequential(base[0], Raw(), nn.ReLU(), base[2], nn.ReLU(), base[4])
    result = kw.compress(net, X, keep=0.85)
    reasons = result.table().set_index("layer")["reason"]
    assert reasons["1"] == "Raw uses raw parameters (mixing)"
    assert reasons["1.unused"] == "it was never called"
    for name in ("mixing", "unused.weight"):
        torch.testing.assert_close(
            result.model[1].get_parameter(name), net[1].get_parameter(name), atol=0, rtol=0
        )
    assert result.table()[["rank", "units"]].notna().any(axis=None)


def test_a_layer_with_hooks_keeps_them() -> None:
    net = mlp()
    net[2].register_forward_hook(lambda module, inputs, output: 2 * output)
    result = kw.compress(net, X, keep=0.95)
    assert result.table()["reason"][1] == "it has hooks, which a new module would lose"
    assert len(result.model[2]._forward_hooks) == 1
    assert result.table()["rank"].notna().tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_other_precision(dtype: torch.dtype) -> None:
    net, x = mlp().to(dtype), X.to(dtype)
    result = kw.compress(net, x, keep=0.6)
    assert {p.dtype for p in result.model.parameters()} == {dtype}
    full = kw.compress(mlp(), X, keep=0.6)
    assert result.kl < 3 * full.kl + 2e-4  # bfloat16 numbers have three digits
    assert result.after.parameters == full.after.parameters


def test_a_network_in_training_is_fitted_without_dropout_and_given_back_in_training() -> None:
    torch.manual_seed(0)
    still = mlp()
    net = nn.Sequential(
        still[0], nn.Dropout(0.9), still[1], still[2], nn.Dropout(0.9), still[3], still[4]
    ).train()
    net[3].eval()
    result = kw.compress(net, X, keep=0.6)
    assert result.kl == pytest.approx(kw.compress(still, X, keep=0.6).kl, rel=1e-6)
    assert net.training
    assert [module.training for module in net] == [True, True, True, False, True, True, True]
    assert [module.training for module in result.model] == [True, True, True, False, True, True, True]
    assert all(part.training == module.training for module in result.model for part in module.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_a_network_shared_with_other_code_is_never_changed(fails: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(256, 10)
    ).train()  # fmt: skip
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones(10, 256)
    calls: list[int] = []
    net.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(60, 1, 8, 8)
    if fails:
        x[30] = float("nan")
    before = copy.deepcopy(net.state_dict())
    modules = dict(net.named_modules())
    identities = {name: (id(p), p.data_ptr(), p.requires_grad) for name, p in net.named_parameters()}
    hooks = {path: len(m._forward_hooks) + len(m._forward_pre_hooks) for path, m in modules.items()}
    flags = {path: module.training for path, module in modules.items()}
    result = None
    if fails:
        with pytest.raises(ValueError, match="finite"):
            kw.compress(net, x, keep=0.8)
    else:
        result = kw.compress(net, x, keep=0.8)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert dict(net.named_modules()) == modules
    assert identities == {name: (id(p), p.data_ptr(), p.requires_grad) for name, p in net.named_parameters()}
    assert hooks == {p: len(m._forward_hooks) + len(m._forward_pre_hooks) for p, m in net.named_modules()}
    assert flags == {path: module.training for path, module in net.named_modules()}
    assert torch.equal(net[5].weight.grad, torch.ones(10, 256))
    if result is not None:
        assert not {p.data_ptr() for p in net.parameters()} & {
            p.data_ptr() for p in result.model.parameters()
        }
        ours = {
            path: len(m._forward_hooks) + len(m._forward_pre_hooks)
            for path, m in result.model.named_modules()
        }
        assert sum(ours.values()) == sum(hooks.values())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "Exactly one of .* none was given"),
        ({"keep": 0.5, "max_kl": 0.1}, "Exactly one of .* keep and max_kl was given"),
        ({"keep": 0}, r"`keep` must be a share above 0 and up to 1, but is 0\."),
        ({"keep": float("nan")}, "`keep` must be a share"),
        ({"max_kl": -1.0}, r"`max_kl` must be at least 0, but is -1\.0"),
        ({"max_drop": float("nan")}, "`max_drop` must be at least 0"),
        ({"max_drop": 0.01}, r"must have integer labels: pairs \(x, y\)"),
        ({"keep": 0.5, "cost": "flops"}, r"`cost` must be one of \('parameters', .* but is 'flops'"),
        ({"keep": 0.5, "multiple_of": 0}, "`multiple_of` must be an integer of at least 1, but is 0"),
        ({"keep": 0.5, "memory": 0}, "`memory` must be a positive number of bytes"),
        ({"keep": 0.5, "batch_size": 0}, "`batch_size` must be an integer of at least 1, but is 0"),
        ({"keep": 0.5, "layers": "nine"}, "'nine' matches none"),
        ({"keep": 0.5, "loss": "mse"}, "`loss` must be one of"),
        ({"keep": 0.5, "output": "logits"}, "`output` must name a floating tensor"),
    ],
)
def test_wrong_arguments(arguments: dict, told: str) -> None:
    with pytest.raises((ValueError, kw.SelectorError), match=told):
        kw.compress(mlp(), X, **arguments)


def test_what_is_no_network_and_a_network_that_cannot_be_copied() -> None:
    with pytest.raises(TypeError, match="Argument `model` must be"):
        kw.compress(torch.relu, X, keep=0.5)  # type: ignore[arg-type]
    net = mlp()
    net.kept = net(X)  # a tensor with a graph
    with pytest.raises(TypeError, match=r"must be a network that `copy\.deepcopy` can copy"):
        kw.compress(net, X, keep=0.5)
