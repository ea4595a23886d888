"""The reservoir: a fair draw of samples, whatever the order and size of batches."""

import copy

import pytest
import torch
from torch import nn

from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.positions import Positions
from ketwork.networks.moments.reservoir import SAMPLES, Reservoir
from ketwork.networks.study.run import study
from ketwork.records.record import pack


def _reservoir(samples: int, seed: int, positions: int = 3) -> Reservoir:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(samples, positions, 4, generator=draw)
    keys = torch.rand(samples, generator=draw, dtype=torch.float64)
    return Reservoir.from_batch(values, Positions.of(values), BatchKeys(keys))


@pytest.mark.parametrize("sizes", [(5, 7, 9), (100, 100, 100), (1, 400, 3), (128, 0, 1)])
def test_reservoirs_keep_the_smallest_keys_in_any_order(sizes: tuple[int, ...]) -> None:
    parts = [_reservoir(n, seed) for seed, n in enumerate(sizes)]
    every = torch.cat(
        [torch.rand(n, generator=_after(n, seed), dtype=torch.float64) for seed, n in enumerate(sizes)]
    )
    expected = every.sort()[0][:SAMPLES]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        total = copy.deepcopy(parts[order[0]])
        for i in order[1:]:
            total += copy.deepcopy(parts[i])
        assert torch.equal(total.keys.sort()[0], expected)
        assert len({len(t) for t in pack(total)[1].values()}) == 1


def _after(samples: int, seed: int) -> torch.Generator:
    draw = torch.Generator().manual_seed(seed)
    torch.randn(samples, 3, 4, generator=draw)
    return draw


def test_reservoirs_of_different_lengths_grow_together() -> None:
    total = _reservoir(5, 0, positions=2)
    total += _reservoir(6, 1, positions=9)
    assert total.kets.shape == (11, 9, 4)
    assert total.valid().sum(dim=1).tolist() == [2] * 5 + [9] * 6


def test_every_sample_has_the_same_chance_to_stay() -> None:
    stays = torch.zeros(400)
    values = torch.arange(1.0, 401).reshape(400, 1, 1)
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        row = study(nn.Identity(), values, seed=draw, batch_size=50)["(model)"]
        stays[row.accumulator.reservoir.norms[:, 0].long() - 1] += 1
    # Each stays 200 × 128/400 = 64 times, ± 6.6.
    assert float(((stays - 64) ** 2).sum()) / (64 * (1 - 128 / 400)) == pytest.approx(400, rel=0.25)
    assert float(stays[:100].mean()) == pytest.approx(float(stays[300:].mean()), abs=3)


def test_parts_of_data_draw_independent_samples_with_one_generator() -> None:
    """Each of 40 first parts keeps 128 of 400 places, and so does its second part: 41 in common by chance."""
    draw = torch.Generator().manual_seed(0)
    common = []
    for _ in range(40):
        values = torch.randn(800, 1, 2, generator=draw)
        kept = []
        for part in values.split(400):
            reservoir = study(nn.Identity(), part)["(model)"].accumulator.reservoir
            norms = part[:, 0].norm(dim=1)
            kept.append({int((norms - norm).abs().argmin()) for norm in reservoir.norms[:, 0]})
        common.append(len(kept[0] & kept[1]))
    # Hypergeometric: mean 128²/400 = 40.96, standard deviation 4.36; of the mean of 40, 0.69.
    assert sum(common) / len(common) == pytest.approx(40.96, abs=4 * 0.69)


def test_a_sample_keeps_the_same_positions_whatever_batch_it_came_in() -> None:
    values = torch.randn(300, 90, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = (study(nn.Identity(), values, batch_size=size)["(model)"] for size in (7, 100))
    for name, estimate in one.estimates.items():
        assert estimate.stderr == pytest.approx(other.estimates[name].stderr, rel=1e-6, nan_ok=True), name
