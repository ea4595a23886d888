"""What a look measures: the numbers of a study, and the monitor's own against their definitions."""

import math

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.monitor import DEFAULT, QUANTITIES
from ketwork.networks.monitor.quantities import chosen
from ketwork.networks.monitor.run import Monitor

X = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 1).long()


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5))


def test_a_look_has_the_numbers_of_a_study(tmp_path):
    names = [*DEFAULT, "entropy", "top_weight", "stable_rank", "coherence", "pgm_balanced", "holevo_null"]
    look = Monitor(network(), (X, Y), quantities=names, batch_size=64, path=tmp_path).look(0)
    study = kw.study(network(), (X, Y))
    assert [layer.layer for layer in look.layers] == [layer.name for layer in study]
    compared = 0
    for mine, layer in zip(look.layers, study, strict=True):
        for name in mine.values.keys() & layer.estimates.keys() - {"dead"}:
            assert mine.values[name].value == pytest.approx(layer.estimate(name).value, rel=1e-12), name
            assert mine.values[name].stderr == pytest.approx(layer.estimate(name).stderr, nan_ok=True), name
            compared += 1
        assert mine.values["dead"].value == layer.dead.value
    assert compared == 3 * 11


def test_the_spread_is_the_variance_of_unit_vectors(tmp_path):
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(2)) + 1.5
    look = Monitor(nn.Identity(), x, layers="all", quantities=["spread"], path=tmp_path).look(0)
    z = nn.functional.normalize(x, dim=1).double()
    spread = look.layers[0].values["spread"]
    assert spread.value == pytest.approx(float(z.var(dim=0, unbiased=False).sum()), rel=1e-5)
    draws = [torch.randint(400, (400,), generator=torch.Generator().manual_seed(i)) for i in range(300)]
    resampled = torch.stack([z[each].var(dim=0, unbiased=False).sum() for each in draws])
    assert spread.stderr == pytest.approx(float(resampled.std()), rel=0.15)


def test_positions_views_and_labels_add_their_quantities(tmp_path):
    texts = torch.randint(9, (40, 7), generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Embedding(9, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    plain = Monitor(encoder, texts, path=tmp_path / "a").look(0)
    viewed = Monitor(encoder, (texts, torch.arange(40) // 2 % 4), views=2, path=tmp_path / "b").look(0)
    common = {"effective_rank", "participation_ratio", "spread", "norm", "dead", "parameter_change"}
    assert plain.layers[-1].values.keys() == common | {"rank_collapse"}
    assert viewed.layers[-1].values.keys() == common | {"rank_collapse", "holevo", "linear_balanced", "lidar"}
    assert viewed.layers[-1].values["lidar"].value > 1
    assert all(math.isfinite(layer.values["rank_collapse"].stderr) for layer in plain.layers)


def test_alike_tokens_have_rank_collapse_1_and_numbers_an_r2(tmp_path):
    x = torch.randn(60, 1, 5, generator=torch.Generator().manual_seed(3)).expand(60, 4, 5).contiguous()
    look = Monitor(nn.Identity(), (x, x[:, 0, 0].clone()), layers="all", path=tmp_path).look(0)
    assert look.layers[0].values["rank_collapse"].value == pytest.approx(1, abs=1e-5)
    assert look.layers[0].values["linear_r2"].value > 0.5
    assert "linear_balanced" not in look.layers[0].values


def test_names_that_are_none():
    with pytest.raises(ValueError, match=r"`quantities`.*'efective_rank'\. Near it: effective_rank"):
        chosen(["efective_rank"])
    with pytest.raises(TypeError, match=r"`quantities` must be a list of names, but is 'norm'"):
        chosen("norm")
    with pytest.raises(ValueError, match=r"`quantities` must name at least one"):
        chosen([])
    assert [each.name for each in chosen(None)] == list(DEFAULT)
    assert all(each.definition and each.title for each in QUANTITIES.values())
