"""Layers fitted one after another on what the fitted ones before give them."""

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.compression.calibration import Calibration, calibrate
from ketwork.networks.compression.fits import Fits, Variant, one_shot, sequential
from ketwork.networks.compression.forms import DENSE, Form
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.scratch import Scratch
from ketwork.networks.compression.surgery import copied
from ketwork.networks.compression.survey import WIDEST_INPUT, run_survey


def fits(
    net: nn.Module, x: Tensor, loss: str = "squared", batch_size: int = 100
) -> tuple[nn.Module, Fits, Calibration]:
    base = copied(net).requires_grad_(False)
    gathered = calibrate(base, x, samples=None, batch_size=batch_size, loss=loss)
    gathered.remember(base, 2**30)
    layers, _ = weight_layers(base)
    return base, Fits(layers, run_survey(base, layers, gathered, torch.Generator().manual_seed(0))), gathered


def deep(width: int = 24, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 6))


def correlated(n: int, width: int = 24) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(n, width, generator=draw) * torch.logspace(0.5, -1, width) + 0.5


def test_at_full_rank_the_network_is_what_it_was() -> None:
    net, x = deep(), correlated(1000)
    base, found, gathered = fits(net, x)
    full = {layer.path: Form("outputs", min(layer.m, layer.k)) for layer in found.layers}
    for weighted in (False, True):
        model, missed = sequential(base, found, Variant(full, weighted), gathered, gathered.fit)
        assert missed == frozenset()
        assert isinstance(model[0], nn.Sequential)
        torch.testing.assert_close(model(x), base(x), atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(one_shot(base, found, full, weighted)(x), base(x), atol=2e-4, rtol=2e-4)


def test_where_memory_is_short_only_what_many_need_is_kept() -> None:
    _, found, _ = fits(deep(96), correlated(300, 96))
    layer = found.layers[0]
    for memory, again in ((2**30, True), (0, False)):
        short = Fits(found.layers, found.survey, scratch=Scratch(memory))
        plain, weighted = short.reductions(layer, False), short.reductions(layer, True)
        assert short.scratch.mapped == (0 if again else 2)  # the weight, and the eigenvectors of the metric
        assert plain.weight is weighted.weight
        assert short.reductions(layer, True) is weighted
        assert (short.reductions(layer, False) is plain) == again
        mapped = short.scratch.mapped
        for one, other in zip(
            plain.cut(Form("outputs", 8))[0],
            found.reductions(layer, False).cut(Form("outputs", 8))[0],
            strict=True,
        ):
            assert torch.equal(one, other)
        assert short.scratch.mapped == mapped  # no file for what nobody keeps


def test_it_beats_layers_cut_each_by_itself() -> None:
    net, x = deep(), correlated(3000)
    base, found, gathered = fits(net, x)
    ranks = {layer.path: Form("outputs", 4) if layer.m > 6 else DENSE for layer in found.layers}
    for weighted in (False, True):
        before = gathered.ran
        model, _ = sequential(base, found, Variant(ranks, weighted), gathered, gathered.fit)
        assert gathered.ran - before == 2 * sum(batch.size for batch in gathered.fit)  # each network once
        alone = gathered.kl(one_shot(base, found, ranks, weighted))
        assert gathered.kl(model) < 0.85 * alone


def test_each_layer_is_fitted_on_inputs_of_the_network_compressed_so_far() -> None:
    """Of two layers the second, dense, must be the least-squares map from the compressed first's output."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 3))
    x = torch.randn(6000, 10)
    base, found, gathered = fits(net, x, batch_size=500)
    model, _ = sequential(
        base, found, Variant({"0": Form("outputs", 3), "2": DENSE}, False), gathered, gathered.fit
    )
    kept = torch.cat([batch.content for batch in gathered.fit])
    h, y = model[:2](kept).detach().double(), base(kept).double()
    ones = torch.ones(len(h), 1, dtype=torch.float64)
    best = torch.linalg.lstsq(torch.cat([h, ones], 1), y).solution
    residual = (torch.cat([h, ones], 1) @ best - y).square().sum()
    assert float((model(kept).detach().double() - y).square().sum()) == pytest.approx(
        float(residual), rel=1e-3
    )


def test_layers_called_twice_are_fitted_by_themselves_and_named() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.step(torch.tanh(self.step(x)))))

    torch.manual_seed(0)
    x = torch.randn(300, 8)
    base, found, gathered = fits(Twice(), x)
    ranks = dict.fromkeys(("step", "out"), Form("outputs", 2))
    model, missed = sequential(base, found, Variant(ranks, False), gathered, gathered.fit)
    assert missed == {"step"}
    alone = one_shot(base, found, ranks, False)
    for one, other in zip(model.step, alone.step, strict=True):
        torch.testing.assert_close(one.weight, other.weight)
    assert gathered.kl(model) < gathered.kl(alone)


def test_layers_too_wide_for_the_moments_of_their_inputs_are_fitted_without_a_graph() -> None:
    """Of these the last module alone is fitted; at full rank that gives the network back."""
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Linear(WIDEST_INPUT + 1, 8), nn.Tanh(), nn.Linear(8, 3)),
        torch.randn(60, WIDEST_INPUT + 1),
    )
    base, found, gathered = fits(net, x, batch_size=20)
    form = {"0": Form("outputs", 8), "2": DENSE}
    model, missed = sequential(base, found, Variant(form, True), gathered, gathered.fit)
    assert missed == frozenset()
    torch.testing.assert_close(model(x), base(x), atol=2e-4, rtol=2e-4)
