"""Debiased CKA over rows of different samples: against the sum over all tuples, and what some samples say of it."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ketwork.networks.measures.clusters import Clusters, ClusterSums

from .. import reference


def rows_of(sizes: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Two layers' centred rows, of samples with so many rows each that are alike, and the samples' keys."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.rand(len(sizes), generator=generator, dtype=torch.float64).repeat_interleave(
        torch.tensor(sizes)
    )
    layers = []
    for d in (3, 4):
        own = torch.randn(len(sizes), d, generator=generator, dtype=torch.float64)
        x = own.repeat_interleave(torch.tensor(sizes), dim=0)
        x = x + 0.5 * torch.randn(len(keys), d, generator=generator, dtype=torch.float64)
        layers.append(x - x.mean(dim=0))
    return layers[0], layers[1], keys


def brute(x: Tensor, y: Tensor, keys: Tensor) -> float:
    """HSIC as the mean over all tuples of rows of different samples."""
    k, other, owner = (x @ x.mT).tolist(), (y @ y.mT).tolist(), keys.tolist()

    def mean(count: int, term: object) -> float:
        assert callable(term)
        tuples = [
            places
            for places in itertools.permutations(range(len(owner)), count)
            if len({owner[place] for place in places}) == count
        ]
        return math.fsum(term(*places) for places in tuples) / len(tuples)

    return (
        mean(2, lambda i, j: k[i][j] * other[i][j])
        - 2 * mean(3, lambda i, j, q: k[i][j] * other[i][q])
        + mean(4, lambda i, j, q, r: k[i][j] * other[q][r])
    )


@pytest.mark.parametrize("sizes", [[2, 2, 2, 2, 2], [1, 3, 2, 4, 1], [1] * 7])
def test_hsic_is_the_mean_over_rows_of_different_samples(sizes: list[int]) -> None:
    x, y, keys = rows_of(sizes)
    found = ClusterSums.from_rows([x, y], Clusters.from_keys(keys), len(keys), len(sizes))
    squares = (x.mT @ y).square().sum()
    assert float(squares + found.offsets()[0, 1]) / found.tuples[0] == pytest.approx(
        brute(x, y, keys), rel=1e-9
    )


def test_wide_layers_go_another_way_to_the_same_sums() -> None:
    x, y, keys = rows_of([1, 3, 2, 4, 1])
    clusters = Clusters.from_keys(keys)
    narrow = ClusterSums.from_rows([x, y], clusters, len(keys), 5).offsets()
    wide = [torch.nn.functional.pad(part, (0, 60)) for part in (x, y)]
    np.testing.assert_allclose(
        ClusterSums.from_rows(wide, clusters, len(keys), 5).offsets(), narrow, rtol=1e-10
    )


def test_of_single_rows_it_is_songs() -> None:
    x, y, keys = rows_of([1] * 30)
    found = ClusterSums.from_rows([x, y], Clusters.from_keys(keys), 30, 30)
    squares = torch.stack([torch.stack([(a.mT @ b).square().sum() for b in (x, y)]) for a in (x, y)])
    hsic = squares + found.offsets()
    cka = float(hsic[0, 1] / (hsic[0, 0] * hsic[1, 1]).sqrt())
    assert cka == pytest.approx(reference.cka(x.numpy(), y.numpy()), abs=1e-12)


def test_parts_of_the_samples_give_the_sums_of_all_on_average() -> None:
    sizes = [1, 3, 2, 4, 1, 2]
    x, y, keys = rows_of(sizes)
    clusters = Clusters.from_keys(keys)
    whole = ClusterSums.from_rows([x, y], clusters, len(keys), len(sizes))
    parts = []
    for some in itertools.combinations(range(len(sizes)), 4):
        inside = torch.isin(clusters.owners, torch.tensor(some))
        part = Clusters.from_keys(keys[inside])
        parts.append(ClusterSums.from_rows([x[inside], y[inside]], part, len(keys), len(sizes)))
    for name in ("same", "turned", "lengths", "along", "products", "weights"):
        mean = torch.stack([getattr(part, name) for part in parts]).mean(dim=0)
        np.testing.assert_allclose(mean, getattr(whole, name), rtol=1e-9)
