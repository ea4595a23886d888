"""A study's one pass equals the slow way: keep every activation, make every ket, build the density."""

import math

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.captures import POOLED
from ketwork.networks.activations.reading import Reading
from ketwork.networks.study import gathering
from ketwork.networks.study.run import study


class Recurrent(nn.Module):
    """Calls one cell three times."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.cell = nn.Linear(5, 5, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.cell(x).tanh()
        return x


def _network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    squash = nn.Tanh() if dtype.is_complex else nn.ReLU()
    return nn.Sequential(nn.Linear(6, 9, dtype=dtype), squash, nn.Linear(9, 4, dtype=dtype))


def _data(*shape: int, dtype: torch.dtype) -> Tensor:
    data = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return data + 0.5 * torch.ones(shape[-1])


def _slow(vectors: Tensor, normalize: str, center: bool) -> Tensor:
    """ρ of all vectors (n, d), in double precision."""
    vectors = vectors.to(torch.complex128 if vectors.is_complex() else torch.float64)
    if not (center and normalize == "ensemble"):  # whose mean is of zero vectors too
        vectors = vectors[vectors.norm(dim=-1) > 0]
    if normalize == "state":
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    if center:
        vectors = vectors - vectors.mean(dim=0)
    weights = vectors.norm(dim=-1).square()
    kets = kw.Ket.normalized(vectors)
    return kw.Density.from_kets(kets.amplitudes, weights / weights.sum()).matrix()


TOLERANCE = {torch.float32: 1e-6, torch.complex64: 1e-6, torch.float64: 1e-12, torch.complex128: 1e-12}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("normalize", ["state", "ensemble"])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("samples", [3, 500])
def test_every_layer_of_a_small_network(
    dtype: torch.dtype, normalize: str, center: bool, samples: int
) -> None:
    network, data = _network(dtype), _data(samples, 6, dtype=dtype)
    record = study(network, data, normalize=normalize, center=center, batch_size=33)
    x = data
    for name, layer in network.named_children():
        x = layer(x).detach()
        rho = record[name].density.matrix()
        torch.testing.assert_close(rho, _slow(x, normalize, center), rtol=0, atol=TOLERANCE[dtype])
        spectrum = torch.linalg.eigvalsh(_slow(x, normalize, center)).clamp(min=0)
        entropy = float(-torch.special.xlogy(spectrum, spectrum).sum() / math.log(2))
        assert record[name].entropy.plain == pytest.approx(entropy, abs=100 * TOLERANCE[dtype])


@pytest.mark.parametrize("normalize", ["state", "ensemble"])
@pytest.mark.parametrize("center", [False, True])
def test_positions_and_masks(normalize: str, center: bool) -> None:
    network, data = _network(torch.float64), _data(60, 7, 6, dtype=torch.float64)
    present = torch.rand(60, 7, generator=torch.Generator().manual_seed(2)) > 0.4
    record = study(network, data, mask=present, normalize=normalize, center=center, batch_size=17)
    x = data
    for name, layer in network.named_children():
        x = layer(x).detach()
        row = record[name]
        zero = int((x[present].norm(dim=-1) == 0).sum())
        assert (row.N, row.kets) == (60, int(present.sum()) - zero)
        torch.testing.assert_close(
            row.density.matrix(), _slow(x[present], normalize, center), rtol=0, atol=1e-12
        )
        assert row.norm.value == pytest.approx(float(x[present].norm(dim=-1).sum()) / row.kets)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_pooled_and_separate_calls(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network, data = Recurrent(dtype), _data(90, 5, dtype=dtype)
    outputs, x = [], data
    for _ in range(3):
        outputs.append(network.cell(x).detach())
        x = outputs[-1].tanh()
    separate = study(network, data, batch_size=20)
    for call in range(3):
        rho = separate["cell", call].density.matrix()
        torch.testing.assert_close(rho, _slow(outputs[call], "state", False), rtol=0, atol=TOLERANCE[dtype])
    pooled = study(network, data, batch_size=20, reading=Reading(calls="pooled"))["cell"]
    assert (pooled.call, pooled.N, pooled.kets) == (POOLED, 90, 270)
    every = torch.cat(outputs)
    torch.testing.assert_close(
        pooled.density.matrix(), _slow(every, "state", False), rtol=0, atol=TOLERANCE[dtype]
    )


def test_centring_the_ensemble_gives_the_principal_components() -> None:
    data = _data(400, 6, dtype=torch.float64) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.2]) + 5
    row = study(nn.Identity(), data, normalize="ensemble", center=True)["(model)"]
    values = torch.linalg.eigvalsh(torch.cov(data.T))
    torch.testing.assert_close(row.density.spectrum(), (values / values.sum()).flip(0))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_the_size_of_batches_changes_nothing(batch_size: int) -> None:
    network, data = _network(torch.float64), _data(200, 3, 6, dtype=torch.float64)
    once = study(network, data, batch_size=200)
    row, whole = study(network, data, batch_size=batch_size)["2"], once["2"]
    torch.testing.assert_close(row.density.matrix(), whole.density.matrix(), rtol=0, atol=1e-13)
    assert row.entropy.stderr == pytest.approx(whole.entropy.stderr, rel=0.5)
    assert (row.N, row.kets) == (200, 600)


def test_dead_neurons_and_zero_vectors_are_counted() -> None:
    data = torch.zeros(10, 4)
    data[:6, 0] = torch.arange(1, 7).float()
    data[2, 1] = -1.0
    row = study(nn.Identity(), data)["(model)"]
    assert row.dead.value == 0.5
    assert row.zero.value == 0.4
    assert (row.N, row.kets) == (10, 6)
    assert row.norm.value == pytest.approx((1 + 2 + 10**0.5 + 4 + 5 + 6) / 6)


def test_the_widest_layers_are_sketches_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 20)).double()
    x = torch.randn(200, 6, dtype=torch.float64)
    exact = kw.study(net, x)
    monkeypatch.setattr(gathering, "WIDEST", 100)
    monkeypatch.setattr(gathering, "RANK", 16)
    record = kw.study(net, x)
    assert [layer.sketch for layer in record] == [None, 16, None]  # the first lies in 7 dimensions
    assert [note for note in record.notes if "128 features" in note] == [
        "Layer 1 has 128 features: it is kept as a sketch of rank 16, since its exact moment would take 0.0 GB. "
        "`memory=` gives it more, and `layers=` leaves it out."
    ]
    for layer, expected in zip(record, exact, strict=True):
        low, high = layer.entropy.bounds or (layer.entropy.plain, layer.entropy.plain)
        assert low - 1e-9 <= expected.entropy.plain <= high + 1e-9


class Masked(nn.Module):
    """Three layers, of which the one between puts out NaN on some samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scores, self.last = nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        self.scores(torch.where(x[:, :1] > 2.0, torch.nan, y))
        return self.last(y)


def test_a_layer_that_is_skipped_for_its_values_takes_no_sample_from_the_others() -> None:
    net, x = Masked(), _data(120, 6, dtype=torch.float32)
    record = study(net, x, layers="all", compare=True, batch_size=40)
    alone = study(net, x, layers=["first", "last"], compare=True, batch_size=40)
    assert [layer.name for layer in record] == ["first", "last"]
    assert "NaN" in record.skipped["scores"]
    torch.testing.assert_close(
        torch.tensor(record.compare().cka.to_numpy()), torch.tensor(alone.compare().cka.to_numpy())
    )
    assert record.compare().cka.shape == (2, 2)
