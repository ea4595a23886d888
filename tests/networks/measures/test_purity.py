"""The participation ratio from pairs of different samples: exact sums, and bounds under a sketch that hold."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import Activation, LayerInfo
from ketwork.networks.measures import LayerState
from ketwork.networks.measures.purity import OwnPairs
from ketwork.networks.moments import BatchKeys, BatchPart, EntropySolver, Keep, Positions, read_parts
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.run import study

SETTINGS = [
    {"normalize": normalize, "center": center}
    for normalize in ("state", "ensemble")
    for center in (False, True)
]


def data(
    n: int, t: int, d: int, *, complex_: bool = False, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    """Clusters of t vectors with lengths that differ, about a mean, in a spectrum that falls; some are zero."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=g, dtype=torch.float64)
        return torch.complex(x, torch.randn(*shape, generator=g, dtype=torch.float64)) if complex_ else x

    scale = 0.8 ** torch.arange(d, dtype=torch.float64)
    x = (draw(n, t, d) + draw(n, 1, d) + draw(1, 1, d)) * scale * draw(n, t, 1).abs().exp()
    x[torch.rand(n, t, generator=g) < 0.1] = 0
    wide = torch.complex64 if dtype == torch.float32 else torch.complex128
    return x.to(wide if complex_ else dtype)


def layer(x: Tensor, normalize: str = "state", center: bool = False, rank: int | None = None) -> Layer:
    """The layer that puts out x (n, t, d); with a rank a sketch, beside which 16 samples are kept."""
    n, t, _ = x.shape
    info = LayerInfo("layer", 0, "Identity", positions=t > 1)
    keys = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keep = Keep(normalize, rank=rank, samples=128 if rank is None else 16, center=center)  # type: ignore[arg-type]
    total = None
    for some in torch.arange(n).split(50):
        activation, solver = Activation(info, x[some]), EntropySolver()
        batch = BatchPart.from_activation(
            activation, Positions.of(x[some]), BatchKeys(keys[some]), keep, solver
        )
        read_parts([batch], solver)
        part = batch.finished()
        if total is None:
            total = part
        else:
            total += part
    assert total is not None
    return Layer.from_accumulator(total, center, normalize, (), None)  # type: ignore[arg-type]


def pairs(x: Tensor, normalize: str, center: bool) -> tuple[Tensor, Tensor]:
    """Tr AᵢAⱼ and WᵢWⱼ of all pairs of samples (n, t, d), by the definition."""
    exists = x.abs().amax(-1) > 0
    if normalize == "state":
        x = torch.where(exists[..., None], x / x.norm(dim=-1, keepdim=True), 0)
    counted = exists if normalize == "state" else torch.ones_like(exists)
    if center:
        x = torch.where(counted[..., None], x - x[counted].mean(dim=0), 0)
    a = (x.mT @ x.conj()).flatten(1)
    w = x.abs().square().sum(dim=(1, 2))
    return (a @ a.mH).real, w[:, None] * w


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("complex_", [False, True])
def test_single_vectors_are_paired_exactly_also_beyond_what_is_kept(
    settings: dict[str, object], complex_: bool
) -> None:
    x = data(300, 1, 6, complex_=complex_)
    top, bottom = pairs(x, **settings)  # type: ignore[arg-type]
    apart = ~torch.eye(300, dtype=torch.bool)
    row = layer(x, **settings)
    own = OwnPairs.from_state(row.state())
    exact = float(bottom.diagonal().sum())
    assert own.squares is not None
    assert own.squares[0] <= exact * (1 + 1e-9)
    assert own.squares[1] >= exact * (1 - 1e-9)
    if not (complex_ and settings["center"]):  # where the mean's phase is not summed
        assert own.t == pytest.approx(exact, rel=1e-9)
        assert row.participation_ratio.value == pytest.approx(
            float(bottom[apart].sum() / top[apart].sum()), rel=1e-9
        )


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("t", [2, 7])
def test_what_is_certain_of_clusters_holds(settings: dict[str, object], complex_: bool, t: int) -> None:
    x = data(260, t, 6, complex_=complex_)
    top, bottom = pairs(x, **settings)  # type: ignore[arg-type]
    own = OwnPairs.from_state(layer(x, **settings).state())
    exact, share = float(bottom.diagonal().sum()), float(top.diagonal().sum() / bottom.diagonal().sum())
    assert own.squares is not None
    assert own.share is not None
    assert own.squares[0] * (1 - 1e-9) <= exact <= own.squares[1] * (1 + 1e-9)
    assert own.share[0] <= share <= own.share[1]
    assert own.squares[0] <= own.t <= own.squares[1]
    if not settings["center"]:
        assert own.t == pytest.approx(exact, rel=1e-9)


def known(exact: kw.Layer, name: str) -> float:
    """What bounds of a sketch are of: the number of the data, which for pairs of different samples has no bias."""
    estimate = exact.estimates[name]
    return estimate.value if name == "participation_ratio" else estimate.plain


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("t", "complex_"), [(1, False), (1, True), (4, False), (4, True)])
def test_bounds_under_a_sketch_hold_the_value_of_the_exact_study(
    settings: dict[str, object], t: int, complex_: bool
) -> None:
    x = data(300, t, 80, complex_=complex_, dtype=torch.float32, seed=t)
    exact = layer(x, **settings)
    sketched = layer(x, rank=16, **settings)
    assert sketched.sketch == 16
    assert len(sketched.accumulator.reservoir.keys) < len(exact.accumulator.reservoir.keys)
    for name in (
        "participation_ratio",
        "entropy",
        "effective_rank",
        "top_weight",
        "stable_rank",
        "coherence",
    ):
        found = sketched.estimates[name]
        assert found.bounds is not None, name
        assert found.low <= known(exact, name) <= found.high, name


def test_bounds_allow_for_the_rounding_of_float32() -> None:
    """A sketch that loses almost nothing, beside a moment of float32 products: they differ in the tenth digit."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 1, 60, generator=g) * torch.cat([torch.ones(3), torch.full((57,), 1e-5)])
    exact, sketched = layer(x, normalize="ensemble"), layer(x, normalize="ensemble", rank=15)
    assert sketched.sketch is not None
    assert sketched.sketch_error < 1e-9
    for name in ("participation_ratio", "entropy", "top_weight"):
        found = sketched.estimates[name]
        assert found.low <= known(exact, name) <= found.high
        assert found.high - found.low < 1e-5


def test_parts_have_the_sums_of_the_whole() -> None:
    x = data(120, 5, 6)
    settings = {"normalize": "ensemble", "center": True}
    whole = layer(x, "ensemble", True).accumulator.sample_weights
    parts = [
        study(nn.Identity(), part, labels=False, reading=kw.Reading(feature_axis=-1), **settings)  # type: ignore[arg-type]
        for part in (x[:7], x[7:80], x[80:])
    ]
    joined = (parts[2] + (parts[0] + parts[1]))["(model)"].accumulator.sample_weights
    assert whole is not None
    assert joined is not None
    for name, value in vars(whole).items():
        torch.testing.assert_close(torch.as_tensor(getattr(joined, name)), torch.as_tensor(value))


def test_older_records_have_no_bounds_that_are_not_certain() -> None:
    x = data(300, 1, 80, dtype=torch.float32)
    for normalize, certain in (("state", True), ("ensemble", False)):
        row = layer(x, normalize=normalize, rank=16)
        row.accumulator.sample_weights = None
        old = LayerState(row.accumulator, normalize)
        assert (OwnPairs.from_state(old).bounds((0.2, 0.3)) is not None) == certain


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("n", "d"), [(400, 12), (30, 90)])
def test_a_centred_ensemble_is_a_principal_component_analysis(n: int, d: int, complex_: bool) -> None:
    """Zero vectors included, in every form of the moment; sklearn's where it takes the numbers, and numpy's."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=g, dtype=torch.float64) * torch.linspace(2, 0.1, d) + 1
    if complex_:
        x = x + 1j * torch.randn(n, d, generator=g, dtype=torch.float64)
    x[::4] = 0
    row = study(nn.Identity(), x, normalize="ensemble", center=True, labels=False, batch_size=50)["(model)"]
    centred = (x - x.mean(dim=0)).numpy()
    shares = np.linalg.svd(centred, compute_uv=False) ** 2
    shares = shares / shares.sum()
    found = row.density.spectrum()[: len(shares)].numpy()
    np.testing.assert_allclose(found, shares, atol=1e-12)
    if not complex_:
        peer = PCA().fit(x.numpy())
        np.testing.assert_allclose(found, peer.explained_variance_ratio_, atol=1e-12)
        leading = row.density.eigenstates(1)[1].amplitudes[0].numpy()
        assert abs(leading @ peer.components_[0]) == pytest.approx(1, abs=1e-9)
    assert row.zero.value == len(x[::4]) / n
    assert row.entropy.plain == pytest.approx(
        float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    )
    populations = (np.abs(centred) ** 2).sum(0)
    np.testing.assert_allclose(row.state().populations, populations / populations.sum(), atol=1e-12)


def test_a_sketched_centred_ensemble_bounds_a_principal_component_analysis() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(600, 100, generator=g) * 0.8 ** torch.arange(100) + 3 * 0.5 ** torch.arange(100)
    x[::3] = 0
    row = study(nn.Identity(), x, normalize="ensemble", center=True, labels=False, memory="500kB")["(model)"]
    assert row.sketch is not None
    shares = PCA().fit(x.double().numpy()).explained_variance_ratio_
    assert row.top_weight.low <= shares[0] <= row.top_weight.high
    entropy = float(-(shares * np.log2(shares)).sum())
    assert row.entropy.low <= entropy <= row.entropy.high
    assert row.entropy.high - row.entropy.low < 0.2


def test_centred_states_leave_zero_vectors_out() -> None:
    """They have no direction: the covariance is of the kets that there are."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=g, dtype=torch.float64) + 1
    with_zeros = torch.cat([x, torch.zeros(50, 6, dtype=torch.float64)])
    one = study(nn.Identity(), x, center=True, labels=False)["(model)"]
    other = study(nn.Identity(), with_zeros, center=True, labels=False)["(model)"]
    torch.testing.assert_close(other.density.matrix(), one.density.matrix())
    kets = x / x.norm(dim=1, keepdim=True)
    shares = torch.from_numpy(PCA().fit(kets.numpy()).explained_variance_ratio_)
    torch.testing.assert_close(one.density.spectrum(), shares)


def test_the_error_of_a_centred_ensemble_counts_zero_vectors() -> None:
    """As the same data have it when moved off the origin, where no vector is zero."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(100, 5, generator=g, dtype=torch.float64) * torch.tensor([3.0, 2, 1, 1, 0.5]) + 2
    x[::3] = 0
    settings = {"normalize": "ensemble", "center": True, "labels": False}
    one = study(nn.Identity(), x, **settings)["(model)"]
    other = study(nn.Identity(), x + 5, **settings)["(model)"]
    assert one.accumulator.zeros == 34
    assert other.accumulator.zeros == 0
    for name in ("entropy", "participation_ratio", "top_weight"):
        assert one.estimates[name].value == pytest.approx(other.estimates[name].value, rel=1e-9)
        assert one.estimates[name].stderr == pytest.approx(other.estimates[name].stderr, rel=1e-9)
