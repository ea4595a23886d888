"""States less their mean: the covariance of activations is that of a principal component analysis."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from ketwork.networks.study.run import study


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
    assert row.entropy.value == pytest.approx(
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
