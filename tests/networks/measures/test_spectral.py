"""Measures of spectra that are known: one-hot vectors, Gaussians, random layers, and states made by hand."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures.deletion import Deletion
from ketwork.networks.measures.spectral import discarded
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.run import study


def one_hot(*counts):
    """The layer that sees the k-th direction so many times."""
    x = torch.cat([torch.eye(len(counts))[k].expand(n, -1) for k, n in enumerate(counts)])
    return kw.study(nn.Identity(), x)["(model)"]


@pytest.mark.parametrize(
    ("counts", "rank"),
    [
        ((180, 17, 2, 1), 3),  # 0.9, 0.985, 0.995
        ((90, 9, 1), 2),  # 0.99 exactly
        ((1, 1, 1, 1), 4),
        ((1000, 1), 1),
        ((7,), 1),
    ],
)
def test_the_rank_that_carries_99_percent(counts, rank):
    layer = one_hot(*counts)
    assert layer.rank_kept == rank
    assert layer.rank_kept.unit == "dimensions"


def test_the_rank_and_the_coherent_share_are_in_every_table():
    record = kw.study(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(60, 4))
    table, long = record.table(), record.long()
    assert {"rank_kept", "coherent_share"} <= {*table.columns} & {*record.definitions}
    assert {"rank_kept", "coherent_share"} <= {*long["quantity"]}
    assert table["rank_kept"].tolist() == [layer.rank_kept.value for layer in record]
    for layer in record:
        kept = layer.density.spectrum().cumsum(0)
        rank = int(layer.rank_kept)
        assert kept[rank - 1] >= 0.99 > (kept[rank - 2] if rank > 1 else 0)
        share = layer.coherence / (layer.coherence.value + layer.entropy.value)
        assert layer.coherent_share == pytest.approx(share)


def test_what_is_discarded_after_each_rank():
    spectrum = torch.tensor([0.9, 0.085, 0.01, 0.005], dtype=torch.float64)
    assert discarded(spectrum).tolist() == pytest.approx([0.1, 0.015, 0.005, 0.0])


def test_the_coherent_share_of_one_hot_vectors_is_none_and_of_equal_ones_all():
    alone = one_hot(3, 2, 1).coherent_share
    assert alone.plain == pytest.approx(0, abs=1e-9)
    assert alone == pytest.approx(0, abs=1e-4)
    even = kw.study(nn.Identity(), torch.ones(20, 8))["(model)"]
    assert even.coherence == pytest.approx(3)
    assert even.coherent_share == pytest.approx(1)


def _gaussian(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _state(data: Tensor, **settings: object) -> Layer:
    return study(nn.Identity(), data, **settings)["(model)"]  # type: ignore[arg-type]


def test_square_gaussian_data() -> None:
    n = 500
    row = _state(_gaussian(n, n), normalize="ensemble")
    assert row.effective_rank.plain == pytest.approx(math.exp(-0.5) * n, rel=0.01)
    assert 1 / float(row.density.purity()) == pytest.approx(n / 2, rel=0.01)
    roots = row.density.spectrum().clamp(min=0).sqrt()
    roots = roots / roots.sum()
    assert math.exp(-float(torch.special.xlogy(roots, roots).sum())) == pytest.approx(0.80504 * n, rel=0.01)


def test_marchenko_pastur() -> None:
    row = _state(_gaussian(2000, 500), normalize="ensemble", batch_size=500)
    assert row.entropy.plain * math.log(2) == pytest.approx(6.0896, abs=0.002)
    assert row.entropy.value == pytest.approx(math.log2(500), abs=0.02)  # without the bias of finite data
    assert 1 / float(row.density.purity()) == pytest.approx(400, rel=0.005)
    assert row.participation_ratio.value == pytest.approx(500, rel=0.01)  # without the bias of finite data


def test_purity_is_corrected_for_finite_data() -> None:
    raw, unbiased = [], []
    for seed in range(40):
        row = _state(_gaussian(256, 64, seed=seed))
        raw.append(float(row.density.purity()))
        unbiased.append((256 * raw[-1] - 1) / 255)
        assert Deletion(row.state()).purity[1] == pytest.approx(unbiased[-1], rel=1e-9)
        # A state of 64 dimensions has no more than 64, whatever its estimate says.
        assert row.participation_ratio.value <= 64
        assert row.participation_ratio.stderr > 0
        assert row.participation_ratio.plain == pytest.approx(1 / raw[-1], rel=1e-9)
    assert sum(raw) / 40 == pytest.approx(0.019470, abs=3e-5)
    assert sum(unbiased) / 40 == pytest.approx(0.015625, abs=3e-5)


@pytest.mark.parametrize("samples", [20, 100, 128])
def test_the_correction_is_its_formula(samples: int) -> None:
    data = _gaussian(samples, 6) * torch.tensor([4.0, 2, 1, 1, 0.5, 0.1])
    row = _state(data)
    purity = float(row.density.purity())
    expected = (samples - 1) / (samples * purity - 1)
    assert 1 / Deletion(row.state()).purity[1] == pytest.approx(expected, rel=1e-9)
    assert row.participation_ratio.value == pytest.approx(expected, abs=row.participation_ratio.stderr / 4)


@pytest.mark.parametrize("settings", [{}, {"normalize": "ensemble"}, {"center": True}])
@pytest.mark.parametrize("complex_", [False, True])
def test_the_correction_counts_pairs_of_different_samples_only(
    settings: dict[str, object], complex_: bool
) -> None:
    data = _gaussian(30, 1, 5, dtype=torch.complex128 if complex_ else torch.float64)
    data = data * torch.tensor([4.0, 2, 1, 1, 0.5]) + 0.3 * _gaussian(30, 7, 5)
    present = torch.arange(7)[None] < torch.arange(30)[:, None] % 7 + 1
    vectors = data if settings.get("normalize") == "ensemble" else data / data.norm(dim=-1, keepdim=True)
    if settings.get("center"):
        vectors = vectors - vectors[present].mean(dim=0)
    top = bottom = 0.0
    samples = [v[here] for v, here in zip(vectors, present, strict=True)]
    for i, one in enumerate(samples):
        for j, other in enumerate(samples):
            if i != j:
                top += float((one @ other.mH).abs().square().sum())
                bottom += float(one.norm() ** 2 * other.norm() ** 2)
    row = _state(data, mask=present, **settings)
    assert 1 / Deletion(row.state()).purity[1] == pytest.approx(bottom / top, rel=1e-9)


def _relu_layers(widths: list[int]) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after, bias=False)
        with torch.no_grad():
            linear.weight.normal_(std=math.sqrt(2 / after), generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers)


def test_overlaps_through_random_relu_layers() -> None:
    network = _relu_layers([2, *[8192] * 5])
    known = {1: 0.31831, 2: 0.49373, 3: 0.60483, 5: 0.73595}
    record = study(network, torch.eye(2), layers=nn.ReLU)
    for depth, row in enumerate(record, start=1):
        # Two kets of overlap c have the eigenvalues (1 ± c)/2.
        overlap = 2 * row.top_weight.plain - 1
        if depth in known:
            assert overlap == pytest.approx(known[depth], abs=0.02)


def test_purity_of_the_circle_through_a_random_relu_layer() -> None:
    angle = torch.arange(720) * (2 * math.pi / 720)
    circle = torch.stack([angle.cos(), angle.sin()], dim=-1)
    row = study(_relu_layers([2, 4096]), circle, layers=nn.ReLU, batch_size=720)["1"]
    assert float(row.density.purity()) == pytest.approx(0.293318, abs=0.005)


def test_discarded_weight_is_what_the_kept_eigenvalues_leave() -> None:
    data = _gaussian(300, 12) * torch.linspace(1, 3, 12)
    row = _state(data)
    kets, _ = kw.encode(data)
    values, states = row.density.eigenstates(5)
    kept = kets.amplitudes @ states.amplitudes.T
    discarded = float((1 - kept.square().sum(dim=-1)).mean())
    assert discarded == pytest.approx(1 - float(values.sum()), abs=1e-12)
    other = torch.linalg.qr(_gaussian(12, 5, seed=1))[0]
    assert float((1 - (kets.amplitudes @ other).square().sum(dim=-1)).mean()) > discarded


def test_a_data_set_is_a_mixed_state() -> None:
    a = _gaussian(40, 6)
    kets, _ = kw.encode(a)
    expected = sum(torch.outer(k, k) for k in kets.amplitudes) / 40
    row = study(nn.Identity(), a)["(model)"]
    torch.testing.assert_close(row.density.matrix(), expected)
    values = torch.linalg.eigvalsh(expected)
    assert row.entropy.plain == pytest.approx(float(-(values * values.log2()).sum()), abs=1e-12)
    assert row.effective_rank.plain == pytest.approx(2**row.entropy.plain, rel=1e-12)
    assert row.top_weight.plain == pytest.approx(float(values[-1]), rel=1e-12)


def test_averaging_over_positions_is_a_partial_trace() -> None:
    a = _gaussian(9, 5, 4, dtype=torch.complex128)  # samples, positions, features
    features = [kw.Ket.normalized(one, dims=(5, 4)).reduced([1]).matrix() for one in a.flatten(1)]
    weights = a.abs().square().sum(dim=(1, 2))
    expected = sum(w * rho for w, rho in zip(weights, features, strict=True)) / weights.sum()
    row = study(nn.Identity(), a, normalize="ensemble")["(model)"]
    torch.testing.assert_close(row.density.matrix(), expected)
