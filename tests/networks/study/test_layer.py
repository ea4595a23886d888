"""A row of a study: its numbers are attributes, it has its state, and it can be kept alone."""

import copy
import html
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.measures import MEASURES

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def record() -> kw.Study:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    return kw.study(nn.Sequential(shared, nn.Tanh(), shared), (X, torch.arange(80) % 2))


def test_numbers_are_attributes_with_units_errors_and_words(record: kw.Study) -> None:
    layer = record[0]
    for name, estimate in layer.estimates.items():
        assert getattr(layer, name) is estimate
        assert isinstance(estimate, kw.Estimate)
        assert isinstance(estimate, float)
        assert getattr(type(layer), name).__doc__ == MEASURES[name].sentence
    assert {*layer.estimates} <= {*dir(layer)}
    assert layer.entropy > 1
    assert f"{layer.entropy:.2f}" == f"{float(layer.entropy):.2f}"
    assert str(layer.entropy).endswith(" bit")
    assert layer.effective_rank == pytest.approx(2**layer.entropy)
    with pytest.raises(AttributeError, match="no 'linear_r2': it was studied without such labels"):
        _ = layer.linear_r2
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = layer.nothing_of_the_kind


def test_numbers_are_pythons(record: kw.Study) -> None:
    """NumPy's and torch's compare to what is no bool: `sys.exit(numpy.bool_(False))` fails."""
    layer = record[0]
    for estimate in layer.estimates.values():
        assert type(estimate.value) is float
        assert type(estimate.stderr) is float
        assert type(estimate.plain) is float
        assert type(estimate.value > 0.5) is bool
        assert all(type(end) is float for end in estimate.bounds or ())
    assert type(layer.N_eff) is type(layer.positions_per_sample) is type(layer.sketch_error) is float
    assert type(layer.N) is type(layer.kets) is type(layer.d) is int


def test_what_it_is_and_of_what(record: kw.Study) -> None:
    layer = record["0", 1]
    assert (layer.name, layer.call, layer.kind, layer.d, layer.N, layer.kets) == ("0", 1, "Linear", 6, 80, 80)
    assert (layer.info.key, layer.info.label) == (("0", 1), "0 (call 2)")
    assert layer.aliases == ("(model)",)
    assert (layer.sketch, layer.sketch_error) == (None, 0.0)
    assert repr(layer).startswith("Layer('0', call 1, Linear, d=6, N=80: S = ")
    assert str(layer.entropy) in repr(layer)
    cells = re.findall(r"<td>(.*?)</td>", layer._repr_html_())
    assert html.escape(str(layer.entropy)) in cells
    assert len(cells) == sum(not math.isnan(estimate) for estimate in layer.estimates.values())


def test_its_state_is_centred_or_not(record: kw.Study) -> None:
    layer = record[0]
    kets = X @ record_weight(record).T
    kets = (kets + record_bias(record)).double()
    kets = kets / kets.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer.density.matrix(), kets.T @ kets / 80, rtol=0, atol=1e-6)
    apart = kets - kets.mean(dim=0)
    expected = apart.T @ apart / apart.square().sum()
    torch.testing.assert_close(layer.density_of(center=True).matrix(), expected, rtol=0, atol=1e-6)
    assert float(layer.density.entropy()) == pytest.approx(layer.entropy.plain, abs=1e-9)
    assert layer.state().exists
    torch.testing.assert_close(layer.state().spectrum, layer.density.spectrum(), rtol=0, atol=1e-12)


def record_weight(record: kw.Study) -> torch.Tensor:
    torch.manual_seed(0)
    return nn.Linear(6, 6).weight.detach()


def record_bias(record: kw.Study) -> torch.Tensor:
    torch.manual_seed(0)
    return nn.Linear(6, 6).bias.detach()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_gives_it_back(record: kw.Study, place: int, tmp_path: Path) -> None:
    layer = record[place]
    layer.save(tmp_path / "layer")
    back = kw.Layer.load(tmp_path / "layer")
    assert repr(back) == repr(layer)
    assert back.info == layer.info
    assert back.estimates.keys() == layer.estimates.keys()
    for name, estimate in layer.estimates.items():
        pairs = ((back.estimates[name], estimate), (back.estimates[name].stderr, estimate.stderr))
        assert all(one == other or math.isnan(one) == math.isnan(other) for one, other in pairs)
        assert back.estimates[name].unit == estimate.unit
    assert torch.equal(back.density.matrix(), layer.density.matrix())
    assert back.labels is not None
    assert back.labels.names == layer.labels.names
    assert back.labels.helstrom(0, 1) == layer.labels.helstrom(0, 1)
    back.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "layer").read_bytes()
    with pytest.raises(ValueError, match="safetensors file of something else"):
        kw.Study.load(tmp_path / "layer")


def test_a_study_is_no_layer(record: kw.Study, tmp_path: Path) -> None:
    record.save(tmp_path / "study")
    with pytest.raises(
        ValueError, match=r"must be a saved layer, but .* is a safetensors file of something else"
    ):
        kw.Layer.load(tmp_path / "study")


def test_numbers_survive_copies_and_pickles(record: kw.Study) -> None:
    entropy = record[0].entropy
    for other in (copy.deepcopy(entropy), pickle.loads(pickle.dumps(entropy))):
        assert (other, other.stderr, other.bounds, other.unit) == (
            entropy, entropy.stderr, entropy.bounds, "bit",
        )  # fmt: skip


def test_the_rank_share_and_the_positions_of_a_layer() -> None:
    x = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 0  # a zero vector is no ket, but a position
    layer = kw.study(torch.nn.Identity(), x)[0]
    assert layer.kets == 149
    assert layer.positions_per_sample == 3
    assert layer.rank_share.value == pytest.approx(layer.effective_rank.value / 4)
    assert layer.rank_share.stderr == pytest.approx(layer.effective_rank.stderr / 4)
