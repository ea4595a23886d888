"""How unevenly samples share, and which are the heaviest: sums that add up, whatever the batches."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.moments import HEAVIEST, LayerAccumulator


def _data(n: int = 300) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 7, 5, generator=draw) * torch.randn(n, 1, 1, generator=draw).exp()
    return x, torch.arange(7) < torch.randint(1, 8, (n, 1), generator=draw)


def _gathered(batch_size: int, normalize: str = "ensemble") -> LayerAccumulator:
    x, mask = _data()
    record = kw.study(nn.Identity(), x, mask=mask, labels=False, normalize=normalize, batch_size=batch_size)
    return record[0].accumulator


@pytest.mark.parametrize("batch_size", [7, 64, 300])
def test_the_sums_are_those_over_samples(batch_size: int) -> None:
    x, mask = _data()
    lengths = torch.where(mask, x.norm(dim=-1), 0.0).double()
    counts, weights = mask.sum(1).double(), lengths.square().sum(1)
    found = _gathered(batch_size).sample_weights
    assert found is not None
    assert found.kets == float(counts @ counts)
    assert found.squares == pytest.approx(float(weights @ weights), rel=1e-5)
    assert found.norm_products == pytest.approx(float(counts @ lengths.sum(1)), rel=1e-5)
    assert found.norms == pytest.approx(float(lengths.sum(1).square().sum()), rel=1e-5)
    assert _gathered(batch_size, "state").sample_weights.squares == float(counts @ counts)


@pytest.mark.parametrize("batch_size", [7, 64, 300])
def test_the_heaviest_are_kept_whatever_the_batches(batch_size: int) -> None:
    x, mask = _data()
    weights = torch.where(mask, x.norm(dim=-1), 0.0).double().square().sum(1)
    found = _gathered(batch_size)
    assert found.heaviest is not None
    assert found.heaviest.weights is not None
    expected = weights.sort(descending=True).values[:HEAVIEST]
    torch.testing.assert_close(
        found.heaviest.weights.sort(descending=True).values, expected, rtol=1e-5, atol=0
    )
    assert _gathered(batch_size, "state").heaviest is None


def test_studies_in_parts_and_from_files_have_the_same_errors(tmp_path: Path) -> None:
    x, mask = _data()
    how = {"labels": False, "normalize": "ensemble"}
    parts = [
        kw.study(nn.Identity(), x[i : i + 100], mask=mask[i : i + 100], seed=i, **how) for i in (0, 100, 200)
    ]
    for i, part in enumerate(parts):
        part.save(tmp_path / str(i))
    loaded = [kw.Study.load(tmp_path / str(i)) for i in range(3)]
    once, other = sum(parts)[0], (loaded[2] + (loaded[0] + loaded[1]))[0]
    whole = kw.study(nn.Identity(), x, mask=mask, **how)[0]
    assert once.N_eff == pytest.approx(whole.N_eff, rel=1e-6)
    # Coherence, 0.007 bit, is a difference of entropies of 2.3 bits.
    near = {"rel": 1e-6, "abs": 1e-8, "nan_ok": True}
    for name, estimate in once.estimates.items():
        assert other.estimates[name].stderr == pytest.approx(estimate.stderr, **near), name
        assert other.estimates[name].value == pytest.approx(estimate.value, **near), name
    assert whole.entropy.stderr == pytest.approx(once.entropy.stderr, rel=0.15)


def test_numbers_of_the_data_are_saved_beside_the_corrected(tmp_path: Path) -> None:
    x, _ = _data()
    record = kw.study(nn.Identity(), x, labels=False)
    record.save(tmp_path / "study")
    for name, estimate in kw.Study.load(tmp_path / "study")[0].estimates.items():
        assert estimate.plain == pytest.approx(record[0].estimates[name].plain, abs=0, nan_ok=True), name
        assert estimate.value == pytest.approx(record[0].estimates[name].value, abs=0, nan_ok=True), name


def test_the_mean_length_has_the_error_of_all_samples() -> None:
    """A ratio of means over samples: √(N/(N−1) Σ (sᵢ − m nᵢ)²)/Σ n."""
    x, mask = _data(500)
    layer = kw.study(nn.Identity(), x, mask=mask, labels=False)[0]
    lengths = torch.where(mask, x.norm(dim=-1), 0.0).double()
    counts, mean = mask.sum(1).double(), float(lengths.sum() / mask.sum())
    residual = lengths.sum(1) - mean * counts
    expected = float((residual @ residual * 500 / 499).sqrt() / counts.sum())
    assert layer.norm.value == pytest.approx(mean, rel=1e-6)
    assert layer.norm.stderr == pytest.approx(expected, rel=1e-4)
