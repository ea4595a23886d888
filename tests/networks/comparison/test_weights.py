"""Changes of weights: closed forms of norms and ranks, adapters of rank r, and weights that cannot be compared."""

import copy
import math

import peft
import pytest
import torch
from torch import nn

from ketwork.networks.comparison.weights import changed_weights, rank_of, relative


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_weight_that_is_scaled(dtype: torch.dtype) -> None:
    before = network().to(dtype)
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[0].weight.mul_(1.25)
    weight, bias, *rest = changed_weights(before, after)
    assert weight.relative == pytest.approx(0.25, rel={torch.bfloat16: 5e-3}.get(dtype, 1e-6))
    assert (weight.rank, weight.shape) == (12, (20, 12))
    shares = torch.linalg.svdvals(before[0].weight.double()).square()
    shares = (shares / shares.sum()).detach()
    expected = math.exp(-float((shares * shares.log()).sum()))
    assert weight.effective_rank == pytest.approx(expected, rel=1e-2 if dtype is torch.bfloat16 else 1e-5)
    assert (bias.relative, bias.rank, bias.effective_rank) == (0.0, None, None)
    assert [(each.relative, each.reason) for each in rest] == [(0.0, None)] * 2
    assert (rest[0].rank, rest[0].effective_rank) == (0, None)


@pytest.mark.parametrize("rank", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rank_of_a_low_rank_change_survives_rounding(rank: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rank)
    before = nn.Linear(60, 40, bias=False)
    nn.init.normal_(before.weight, std=0.05, generator=generator)
    left, right = torch.randn(40, rank, generator=generator), torch.randn(rank, 60, generator=generator)
    before = before.to(dtype)
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.weight.copy_(before.weight.float() + 0.05 * left @ right)
    (change,) = changed_weights(before, after)
    assert change.rank == rank
    assert 1 <= change.effective_rank <= rank + 1e-9
    difference = (after.weight - before.weight).detach().double()
    assert torch.linalg.matrix_rank(difference) == 40  # which rounding fills


def test_rounding_alone_has_no_rank() -> None:
    before = network().double()
    with torch.no_grad():
        before[0].weight.div_(3)
    (weight, *_) = changed_weights(before, copy.deepcopy(before).float())
    assert 0 < weight.relative < torch.finfo(torch.float32).eps
    assert (weight.rank, weight.effective_rank) == (0, None)


def test_kernels_are_matrices_and_norms_add_up() -> None:
    torch.manual_seed(1)
    before = nn.Conv2d(3, 8, 5)
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.weight[2, 1, 3, 3] += 0.5
    weight, bias = changed_weights(before, after)
    assert (weight.rank, weight.effective_rank) == (1, pytest.approx(1))
    assert weight.change == pytest.approx(0.5)
    both = before.weight.square().sum() + before.bias.square().sum()
    assert relative([weight, bias]) == pytest.approx(0.5 / math.sqrt(float(both.detach())))
    assert math.isnan(relative([]))


def test_effective_rank_counts_directions_by_their_weight() -> None:
    delta = torch.diag(torch.tensor([3.0, 4.0, 0.0]))
    shares = torch.tensor([9 / 25, 16 / 25])
    rank, effective = rank_of(delta, delta, eps=1e-7)
    assert (rank, effective) == (2, pytest.approx(math.exp(-float((shares * shares.log()).sum()))))


@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"]
)
@pytest.mark.parametrize("rank", [1, 4])
def test_adapters_have_their_rank(rank: int, options: dict[str, bool]) -> None:
    base = network()
    apart = copy.deepcopy(base)
    config = peft.LoraConfig(
        r=rank, target_modules=["0"], modules_to_save=["2"], init_lora_weights=False, **options
    )
    model = peft.get_peft_model(base, config).base_model.model
    with torch.no_grad():
        model[2].modules_to_save["default"].weight.mul_(1.5)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    merged = copy.deepcopy(model)
    merged[0].merge()
    expected = (merged[0].base_layer.weight - apart[0].weight).norm() / apart[0].weight.norm()
    for before, used in ((apart, (True, True)), (model, (False, True))):
        changes = {each.name: each for each in changed_weights(before, model, used)}
        assert [*changes] == ["0.weight", "0.bias", "2.weight", "2.bias"]
        assert changes["0.weight"].relative == pytest.approx(float(expected.detach()), rel=1e-5)
        if "use_dora" not in options:  # which scales every column of W too
            assert changes["0.weight"].rank == rank
        assert changes["2.weight"].relative == pytest.approx(0.5)
        assert changes["0.bias"].relative == 0
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
def test_weights_that_cannot_be_compared_say_why() -> None:
    before = network()
    small = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))
    reasons = {each.name: each.reason for each in changed_weights(before, small)}
    assert reasons["0.weight"] == "the shapes differ: (20, 12) before, (16, 12) after"
    assert reasons["2.bias"] is None
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(before), {nn.Linear}, inplace=False)
    assert {each.reason for each in changed_weights(before, quantized)} == {
        "the network after has no weight of this name"
    }
    integers = copy.deepcopy(before)
    integers[0].weight = nn.Parameter(torch.zeros(20, 12, dtype=torch.int8), requires_grad=False)
    assert changed_weights(integers, before)[0].reason == "the weight before is quantized (int8)"
    broken = copy.deepcopy(before)
    with torch.no_grad():
        broken[0].bias[0] = math.nan
    assert changed_weights(before, broken)[1].reason == "it has NaN or infinite values"
    assert (
        changed_weights(before, copy.deepcopy(before).to("meta"))[0].reason
        == "the weight after is not in memory"
    )
    assert len(changed_weights(before, before, stopped=lambda: True)) == 1
