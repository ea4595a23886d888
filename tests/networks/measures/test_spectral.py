"""Measures of spectra that are known: one-hot vectors, whose state has the shares of the directions on its diagonal."""

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.measures.spectral import discarded


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
    assert one_hot(3, 2, 1).coherent_share == pytest.approx(0, abs=1e-9)
    even = kw.study(nn.Identity(), torch.ones(20, 8))["(model)"]
    assert even.coherence == pytest.approx(3)
    assert even.coherent_share == pytest.approx(1)
