"""`max_samples` takes a fair part of data with a length, its labels and mask with it, and says which."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ketwork as kw
from ketwork.networks.activations import drawn

N = 400
X = torch.arange(1.0, N + 1)[:, None]  # each sample says its place
CODES = torch.arange(N) // 200  # sorted: the first samples have one label only
WORDS = "60 of 400 samples, 30 of each of 2 labels"


def places_of(record: kw.Study) -> list[int]:
    """The places of the samples that a study of `X` kept."""
    return sorted(int(norm) - 1 for norm in record[0].accumulator.reservoir.norms[:, 0])


@pytest.mark.parametrize(
    ("data", "labels"),
    [
        ((X, CODES), None),
        (X, CODES),
        (X, CODES.numpy()),
        (X, CODES.tolist()),
        (X, pd.Series(CODES.numpy(), index=np.arange(N)[::-1])),
        (X.numpy(), [("ham", "spam")[code] for code in CODES]),
        ((X, pd.Series(CODES.numpy())), None),
        ((X, CODES.tolist()), None),
        ({"input": X, "labels": CODES}, None),
        ({"input": X, "topic": CODES}, "topic"),
    ],
)
def test_as_many_of_each_label_and_each_sample_keeps_its_own(data: Any, labels: Any) -> None:
    record = kw.study(nn.Identity(), data, labels=labels, max_samples=60, batch_size=7)
    assert record.samples == 60
    assert record.settings["taken"] == WORDS
    assert WORDS in repr(record)
    known = record[0].labels
    held = known.moments.held
    assert len(known.names) == 2
    assert sum(known.counts) + len(held) == 60
    # Samples are counted among those that were taken, which are in their order.
    taken = places_of(record)
    assert Counter(CODES[taken].tolist()) == {0: 30, 1: 30}
    names = known.names if known.names[0] in (0, "ham") else known.names[::-1]
    read = [names.index(known.names[code]) for code in held.targets]
    assert read == CODES[torch.tensor(taken)[held.samples]].tolist()


def test_without_labels_it_is_at_random_and_the_mask_goes_along() -> None:
    x = X[:, None].expand(N, 3, 1).clone()
    mask = torch.zeros(N, 3, dtype=torch.bool)
    mask[torch.arange(N), torch.arange(N) % 3] = True
    x[mask] *= -1  # only what the mask shows is negative
    seen: list[float] = []

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        seen.extend(batch.amax(dim=(1, 2)).tolist())
        return model(batch)

    last = kw.Reading(feature_axis=-1)
    record = kw.study(nn.Identity(), x, mask=mask, max_samples=50, forward=forward, reading=last)
    assert record.settings["taken"] == "50 of 400 samples, drawn at random"
    assert record[0].kets == 50
    assert seen == sorted(seen)
    assert seen != X[:50, 0].tolist()
    kept = x[torch.tensor(seen).long() - 1][mask[torch.tensor(seen).long() - 1]]
    assert (kept < 0).all()
    assert record[0].norm.value == pytest.approx(float(kept.abs().mean()))


def test_datasets_with_a_length_are_drawn_from_and_streams_are_not() -> None:
    data = TensorDataset(X)
    record = kw.study(nn.Identity(), data, max_samples=50)
    assert record.settings["taken"] == "50 of 400 samples, drawn at random"
    assert places_of(record) != list(range(50))
    for stream in (iter(X.split(32)), DataLoader(X, batch_size=32), list(X.split(32))):
        record = kw.study(nn.Identity(), stream, max_samples=50)
        assert record.settings["taken"] == "the first 50 samples of a stream"
        assert places_of(record) == list(range(50))


@pytest.mark.parametrize("most", [None, N, N + 1])
def test_all_of_the_data_are_taken_as_they_are(most: int | None) -> None:
    found = drawn(X, CODES, None, most, 0)
    assert found[0] is X
    assert found[1] is CODES
    assert found[3:] == (None, None)
    assert kw.study(nn.Identity(), X, max_samples=most).settings["taken"] is None


def test_the_seed_decides_and_batches_do_not() -> None:
    kept = [
        places_of(kw.study(nn.Identity(), X, max_samples=50, seed=seed, batch_size=size))
        for seed, size in ((0, 64), (0, 7), (1, 64))
    ]
    assert kept[0] == kept[1] != kept[2]


def test_two_models_get_the_same_samples() -> None:
    torch.manual_seed(0)
    x = torch.randn(N, 5)
    model, other = nn.Linear(5, 6), nn.Linear(5, 4)
    found = kw.compare(model, x, other, other_data=x.clone(), max_samples=50)
    assert found.n == 50
    assert found.settings["taken"] == "50 of 400 samples, drawn at random"
    expected = kw.compare(model, x, other, max_samples=50)
    for name, matrix in expected.matrices.items():
        torch.testing.assert_close(found.matrices[name], matrix, equal_nan=True)
    for bad in (x[:300], list(x.split(50)), DataLoader(x)):
        with pytest.raises(
            ValueError, match=r"`other_data` must hold the same samples as `data`, .* 400 of them"
        ):
            kw.compare(model, x, other, other_data=bad, max_samples=50)


@pytest.mark.parametrize("count", [1, 399, 401])
def test_labels_and_masks_of_other_lengths_are_refused(count: int) -> None:
    with pytest.raises(
        ValueError, match=f"`labels` must have one entry a sample, but has {count} for 400 samples"
    ):
        kw.study(nn.Identity(), X, labels=torch.zeros(count).long(), max_samples=50)
    with pytest.raises(
        ValueError, match=f"`mask` must have one entry a sample, but has {count} for 400 samples"
    ):
        kw.study(nn.Identity(), X[:, None], mask=torch.ones(count, 1), max_samples=50)


def test_few_samples_of_a_label_are_warned_of() -> None:
    record = kw.study(nn.Identity(), (torch.randn(60, 3), torch.arange(60) % 12))
    warning = "Fewer than 10 samples of these labels: 0 (5), 1 (5), 2 (5), 3 (5), 4 (5), 5 (5) and 6 more. Give more"
    assert any(each.startswith(warning) for each in record.warnings)
    enough = kw.study(nn.Identity(), (torch.randn(60, 3), torch.arange(60) % 3))
    assert not any("samples of these labels" in each for each in enough.warnings)
