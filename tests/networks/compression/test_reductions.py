"""Every form of a layer: its error is what is measured, its prices are those of its modules, its ranks nest."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ketwork.networks.compression.budgets import sizes_of
from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Metric
from ketwork.networks.compression.forms import DENSE, Form, possible, taps
from ketwork.networks.compression.layers import WeightLayer, weight_layers
from ketwork.networks.compression.reductions import Reductions, rounded_to_bits
from ketwork.networks.compression.survey import Survey, Surveyed

CONVOLUTIONS = {
    "strided": lambda: nn.Conv2d(6, 10, 3, padding=1, stride=2),
    "unlike sides": lambda: nn.Conv2d(6, 10, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "same padding, reflected": lambda: nn.Conv2d(6, 10, 3, padding="same", padding_mode="reflect"),
    "one axis": lambda: nn.Conv1d(6, 10, 5, padding=2),
    "three axes": lambda: nn.Conv3d(4, 6, (3, 2, 2)),
}


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def case(name: str) -> tuple[WeightLayer, Tensor, Tensor]:
    """The layer, correlated inputs, and a G."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    conv = CONVOLUTIONS[name]().double()
    layer = weight_layers(nn.Sequential(conv))[0][0]
    x = torch.randn(20, conv.in_channels, *[9] * len(layer.kernel), dtype=torch.float64, generator=draw)
    g = torch.randn(layer.m, layer.m, dtype=torch.float64, generator=draw)
    return layer, x + 0.7 * x.roll(1, -1) + 0.3 * x.roll(1, 1) + 0.5, g @ g.T


def forms(layer: WeightLayer) -> list[Form]:
    return [*(Form(name, 4) for name in layer.splits), Form("both", 5, 3)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_of_each_form_is_what_its_modules_make(name: str, weighted: bool) -> None:
    layer, x, fisher = case(name)
    metric = Metric.of(fisher) if weighted else Metric.none(layer.weight())
    reductions = Reductions(
        layer.weight(), layer.bias(), layer.kernel, metric, Scatter.of(layer.rows_in(x)), splits=layer.splits
    )
    y = layer.rows_out(layer.module(x)).detach()
    assert set(layer.splits) == set(reductions.available())
    for form in forms(layer):
        change = layer.rows_out(layer.factored(form, *reductions.cut(form))(x)).detach() - y
        error = float(metric.times((change - change.mean(0)).T).square().sum() / len(change))
        assert error == pytest.approx(reductions.error(form), rel=1e-5, abs=1e-7 * reductions.total), form
        assert float(change.mean(0).abs().max()) < 1e-9  # the mean output is kept
    inner = layer.channels
    assert reductions.error(Form("both", layer.m, inner)) == pytest.approx(0, abs=1e-6 * reductions.total)
    errors = [reductions.error(Form("inputs", rank)) for rank in range(1, inner + 1)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_prices_of_each_form_are_those_of_its_modules(name: str) -> None:
    layer, x, _ = case(name)
    metric = Metric.none(layer.weight())
    reductions = Reductions(layer.weight(), layer.bias(), layer.kernel, metric, Scatter.of(layer.rows_in(x)))
    seen = Surveyed("inputs", rows=20 * layer.positions(x), shape=tuple(x.shape))
    sizes = sizes_of(layer, Survey({layer.path: seen}, samples=20))
    for form in [DENSE, *forms(layer)]:
        module = layer.module if form.dense else layer.factored(form, *reductions.cut(form))
        assert sizes.parameters(form, True) == sum(p.numel() for p in module.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x)
        assert sizes.macs(form) == counter.get_total_flops() / 2 / len(x), form


def test_a_layer_that_reads_few_directions_is_exact_behind_a_1_by_1() -> None:
    torch.manual_seed(0)
    mix, conv = nn.Conv2d(3, 12, 1, bias=False).double(), nn.Conv2d(12, 12, 3, padding=1).double()
    x = mix(torch.randn(30, 3, 7, 7, dtype=torch.float64)).detach()
    layer = weight_layers(nn.Sequential(conv))[0][0]
    reductions = Reductions(
        layer.weight(), layer.bias(), layer.kernel, Metric.none(layer.weight()), Scatter.of(layer.rows_in(x))
    )
    assert reductions.share(Form("inputs", 3)) < 1e-6
    assert reductions.share(Form("outputs", 3)) > 0.1
    module = layer.factored(Form("inputs", 3), *reductions.cut(Form("inputs", 3)))
    torch.testing.assert_close(module(x), conv(x), atol=1e-4, rtol=1e-4)


def test_without_moments_of_patches_those_of_channels_serve() -> None:
    """Inputs that are uncorrelated between pixels: there the errors are exact."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3).double()
    layer = weight_layers(nn.Sequential(conv))[0][0]
    x = torch.randn(3000, 5, 3, 3, dtype=torch.float64) * torch.arange(1.0, 6)[:, None, None].double()
    channels = Scatter.of(layer.channel_rows(x))
    outputs = Scatter.of(layer.rows_out(conv(x)).detach())
    reductions = Reductions(
        layer.weight(), layer.bias(), layer.kernel, Metric.none(layer.weight()), None, outputs, channels
    )
    assert reductions.available() == ["outputs", "inputs"]
    form = Form("inputs", 3)
    change = layer.rows_out(layer.factored(form, *reductions.cut(form))(x) - conv(x)).detach()
    assert float(change.square().sum() / len(change)) == pytest.approx(reductions.error(form), rel=0.1)


def test_rounding_costs_what_it_is_said_to() -> None:
    layer, x, fisher = case("strided")
    metric = Metric.of(fisher)
    rows = layer.rows_in(x)
    reductions = Reductions(layer.weight(), layer.bias(), layer.kernel, metric, Scatter.of(rows))
    change = (rows - rows.mean(0)) @ (rounded_to_bits(layer.weight()) - layer.weight()).T
    error = float(metric.times(change.T).square().sum() / len(rows))
    assert reductions.error(DENSE.with_bits(8)) == pytest.approx(error, rel=1e-6)
    for form in forms(layer):
        total, eight = reductions.error(form), reductions.error(form.with_bits(8))
        assert total < eight < total + 0.01 * reductions.total
    weight = rounded_to_bits(layer.weight())
    scale = weight.abs().amax(1, keepdim=True) / 127
    assert float(((weight / scale) - (weight / scale).round()).abs().max()) < 1e-9  # integers
    assert torch.equal(rounded_to_bits(weight), weight)


def test_which_splits_there_are() -> None:
    assert possible(()) == possible((1, 1)) == ("outputs",)
    assert possible((5,)) == possible((64, 1)) == possible((3, 3, 3)) == ("outputs", "inputs")
    assert possible((3, 5)) == ("outputs", "inputs", "rows", "columns")
    assert taps("rows", (3, 5)) == ((3, 1), (1, 5))
    assert taps("columns", (3, 5)) == ((1, 5), (3, 1))
    assert Form("both", 4, 2).described((3, 3)) == "1×1 → 3×3 → 1×1"
