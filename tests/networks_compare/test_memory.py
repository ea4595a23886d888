"""Memory: which side is kept, that neither grows with N², and what projecting costs in accuracy."""

import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.moments.pair_moments import WAITING, PairMoments
from ketwork.networks.moments.projection import Projection
from ketwork.records.record import pack

from .conftest import Fan, related


def stored(moments: PairMoments) -> int:
    """Bytes of all tensors that are held."""
    return sum(tensor.nbytes for tensor in pack(moments)[1].values())


def test_long_data_go_over_to_moments_and_stop_growing() -> None:
    moments = PairMoments(always=0)
    sizes = []
    for step in range(300):
        moments.add({"a": torch.randn(64, 10), "b": torch.randn(64, 20)})
        if step in (20, 299):
            moments.flush()
            sizes.append(stored(moments))
    assert moments.form == "moments"
    assert sizes[0] == sizes[1]
    assert moments.n == 300 * 64


def test_wide_layers_stay_rows() -> None:
    moments = PairMoments()
    for _ in range(10):
        moments.add({"a": torch.randn(8, 3000), "b": torch.randn(8, 5000)})
    assert moments.form == "rows"
    assert stored(moments) == 80 * 8000 * 4


@pytest.mark.parametrize("memory", [1 << 18, 1 << 20])
@pytest.mark.parametrize("batches", [4, 60])
def test_the_budget_holds(memory: int, batches: int) -> None:
    moments = PairMoments(memory=memory)
    for _ in range(batches):
        moments.add({"a": torch.randn(32, 300), "b": torch.randn(32, 400)}, {"c": torch.randn(32, 500)})
    # Beside the budget there are rows on their way into the moments, and those of half the width.
    waiting = WAITING * sum(moments.dims) * 4 * 3 // 2
    assert stored(moments) <= memory + (waiting if moments.form == "moments" else 0)
    if batches == 60:
        assert moments.projections
        assert max(moments.dims) < 300


def test_a_projection_says_its_error_and_the_error_is_right() -> None:
    widths = [200, 200, 300]
    within, total = 0, 0
    for seed in range(4):
        data = torch.cat(related(400, widths, seed), dim=1)
        exact = kw.compare(Fan(widths), data)
        rough = kw.compare(Fan(widths), data, memory=1 << 19, seed=torch.Generator().manual_seed(seed))
        assert not exact.errors
        assert all(layer.held < layer.d for layer in rough.rows)
        assert any("Projected at random" in warning for warning in rough.warnings)
        assert "cka_error" in rough.table()
        for name in ("cka", "bures"):
            change = np.abs(rough.frame(name) - exact.frame(name)).to_numpy()
            said = rough.errors[name].numpy()
            off = ~np.eye(3, dtype=bool)
            assert (change[off] < 3 * said[off]).all()
            within += int((change[off] < said[off]).sum())
            total += int(off.sum())
    assert within >= 0.5 * total


def test_projected_equal_layers_stay_equal(chain: nn.Module) -> None:
    data = torch.cat([related(400, [300])[0]] * 2, dim=1)
    found = kw.compare(Fan([300, 300]), data, memory=1 << 18)
    assert found.rows[0].held < 300
    assert found.cka.iloc[0, 1] == pytest.approx(1, abs=1e-9)
    assert found.bures.iloc[0, 1] == pytest.approx(1, abs=1e-6)


def test_projection_is_seeded() -> None:
    data = torch.cat(related(300, [200, 300]), dim=1)

    def run(**options: object) -> float:
        return float(kw.compare(Fan([200, 300]), data, memory=1 << 18, **options).cka.iloc[0, 1])

    assert run() == run(seed=0) == run(seed=0)
    assert run(seed=1) == run(seed=1) != run(seed=2)
    drawn = [run(seed=torch.Generator().manual_seed(number)) for number in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_sketch_keeps_inner_products_on_average() -> None:
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grams = torch.stack([(s := Projection.draw(40, 16, seed)(x)) @ s.T for seed in range(0, 400000, 100)])
    error = grams.std(dim=0) / len(grams) ** 0.5
    assert ((grams.mean(dim=0) - x @ x.T).abs() < 4.5 * error + 1e-9).all()
    bound = (2 / 16) ** 0.5 * torch.outer(x.norm(dim=1), x.norm(dim=1))
    assert (grams.std(dim=0) < bound * 1.1).all()


def test_layers_must_agree_on_rows_and_widths() -> None:
    moments = PairMoments()
    with pytest.raises(ValueError, match="one row a sample"):
        moments.add({"a": torch.randn(4, 2), "b": torch.randn(5, 2)})
    moments = PairMoments()
    moments.add({"a": torch.randn(4, 2)})
    with pytest.raises(ValueError, match="had 2 features and now has 3"):
        moments.add({"a": torch.randn(4, 3)})
    with pytest.raises(ValueError, match="different keys"):
        PairMoments().add({"a": torch.randn(4, 2)}, {"a": torch.randn(4, 2)})
