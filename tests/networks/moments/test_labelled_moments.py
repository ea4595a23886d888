"""The parts: by sample, seeded, the same for all layers and however the data is batched, and without a leak."""

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures.decoded import DecodedLabels
from ketwork.networks.moments.labelled_moments import (
    CHECK_MOST,
    HELD_MOST,
    HELD_SHARE,
    LabelledMoments,
    Rows,
)
from ketwork.records.record import pack

from ..labelling import labelled


def data(n: int, d: int = 12, k: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (n, d), labels and keys."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(k, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator) + 0.6 * torch.eye(d)[labels]
    return x, labels, torch.rand(n, generator=generator, dtype=torch.float64)


def gathered(x: Tensor, labels: Tensor, keys: Tensor, batch: int) -> LabelledMoments:
    found: LabelledMoments | None = None
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        new = labelled(x[part, None], labels[part], keys[part], start)
        if found is None:
            found = new
        else:
            found += new
    assert found is not None
    return found


def same(a: DecodedLabels, b: DecodedLabels) -> None:
    for name, estimate in a.estimates.items():
        assert estimate.value == pytest.approx(b.estimates[name].value, abs=1e-6, nan_ok=True), name
    assert a.strengths == b.strengths
    assert {kind: t.tolist() for kind, t in a.confusion.items()} == {
        k: t.tolist() for k, t in b.confusion.items()
    }


@pytest.mark.parametrize("n", [300, 6000])
def test_batches_do_not_matter(n: int) -> None:
    x, labels, keys = data(n)
    expected = DecodedLabels.from_moments(gathered(x, labels, keys, n), (0, 1, 2))
    for batch in (1 if n < 1000 else 700, 64):
        found = DecodedLabels.from_moments(gathered(x, labels, keys, batch), (0, 1, 2))
        same(found, expected)
        assert found.held_out.tolist() == expected.held_out.tolist()


def test_parts_are_the_smallest_and_largest_keys() -> None:
    x, labels, keys = data(6000)
    found = gathered(x, labels, keys, 64)
    found.settle()
    assert len(found.held) == HELD_MOST
    assert len(found.checks) == CHECK_MOST
    order = keys.argsort()
    assert found.held.samples.sort().values.tolist() == order[:HELD_MOST].sort().values.tolist()
    assert found.checks.samples.sort().values.tolist() == order[-CHECK_MOST:].sort().values.tolist()
    assert float(found.sums.moments.counts.sum()) == 6000 - HELD_MOST - CHECK_MOST
    assert float(found.fitting().moments.counts.sum()) == 6000 - HELD_MOST


def test_statistics_of_two_halves_add_up() -> None:
    x, labels, keys = data(6000)
    first, second = (slice(0, 2500), slice(2500, None))
    one = gathered(x[first], labels[first], keys[first], 300)
    other = gathered(x[second], labels[second], keys[second], 300)
    other.settle()
    one += other
    same(
        DecodedLabels.from_moments(one, (0, 1, 2)),
        DecodedLabels.from_moments(gathered(x, labels, keys, 6000), (0, 1, 2)),
    )


@pytest.mark.parametrize("n", [400, 6000])
def test_what_is_held_out_influences_no_fit(n: int) -> None:
    x, labels, keys = data(n)
    first = gathered(x, labels, keys, 64)
    before = DecodedLabels.from_moments(first, (0, 1, 2))
    out = before.held_out
    changed, other = x.clone(), labels.clone()
    changed[out] = torch.randn(len(out), 12, generator=torch.Generator().manual_seed(9)) * 100
    other[out] = (labels[out] + 1) % 3
    second = gathered(changed, other, keys, 64)
    after = DecodedLabels.from_moments(second, (0, 1, 2))
    assert after.held_out.tolist() == out.tolist()
    assert after.strengths == before.strengths
    assert after.estimates["holevo"].value == pytest.approx(before.estimates["holevo"].value, abs=1e-9)
    assert after.estimates["linear_balanced"].value < before.estimates["linear_balanced"].value - 0.1
    fitted, refitted = (pack(moments.fitting().moments)[1] for moments in (first, second))
    for name, tensor in fitted.items():
        assert torch.equal(tensor, refitted[name]), name


def test_the_split_is_seeded_and_the_same_for_all_layers() -> None:
    x, labels, _ = data(500)
    network = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5))
    record = kw.study(network, x, labels=labels)
    parts = {tuple(layer.labels.held_out.tolist()) for layer in record if layer.labels}
    assert len(parts) == 1
    again = kw.study(network, x, labels=labels, batch_size=33)
    assert again["0"].labels.held_out.shape == record["0"].labels.held_out.shape
    other = kw.study(network, x, labels=labels, seed=torch.Generator().manual_seed(1))
    assert other["0"].labels.held_out.tolist() != record["0"].labels.held_out.tolist()
    share = len(record["0"].labels.held_out) / 500
    assert share == pytest.approx(HELD_SHARE, abs=0.06)


def test_positions_of_a_sample_stay_together() -> None:
    x = torch.randn(300, 20, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(2, (300, 20), generator=torch.Generator().manual_seed(1))
    keys = torch.rand(300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = labelled(x, labels, keys, positions=True)
    found.settle()
    held, checks = found.held.samples, found.checks.samples
    assert 0 < len(held) <= HELD_MOST
    assert not set(held.tolist()) & set(checks.tolist())
    assert set(torch.bincount(held).unique().tolist()) <= {0, 20}
    assert len(held) + len(checks) + float(found.sums.moments.counts.sum()) == 6000


def test_a_sample_with_more_positions_than_are_held_out_is_still_held_out() -> None:
    many = HELD_MOST + 500
    kets = torch.nn.functional.normalize(
        torch.randn(2 * many, 4, generator=torch.Generator().manual_seed(0)), dim=1
    )
    samples = torch.arange(2).repeat_interleave(many)
    keys = torch.tensor([0.1, 0.2], dtype=torch.float64)[samples]
    found = LabelledMoments.from_rows(Rows(kets, samples % 2, keys, samples))
    found.settle()
    assert found.held.samples.unique().tolist() == [0]
    assert float(found.sums.moments.counts.sum()) == many
