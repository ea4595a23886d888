"""Positions of a batch against loops over its samples."""

import pytest
import torch

from ketwork.networks.moments.positions import Positions, total

N, T, D = 7, 5, 3


@pytest.mark.parametrize("masked", [False, True])
def test_rows_sums_and_grids_are_those_of_loops(masked: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(N, T, D, generator=draw)
    present = torch.rand(N, T, generator=draw) < 0.6
    present[2] = False
    positions = Positions.of(values, present if masked else None)
    there = present if masked else torch.ones(N, T, dtype=torch.bool)
    rows, owners = [], []
    for i in range(N):
        for t in range(T):
            if there[i, t]:
                rows.append(values[i, t])
                owners.append(i)
    assert torch.equal(positions.rows(values), torch.stack(rows))
    assert positions.owners.tolist() == owners
    assert positions.counts.tolist() == there.sum(dim=1).tolist()
    grid = positions.grid(positions.rows(values)[:, 0])
    assert torch.equal(grid, torch.where(there, values[..., 0], 0.0))
    sums = positions.sums(positions.rows(values))
    assert sums.dtype == torch.float64
    torch.testing.assert_close(sums, torch.where(there[..., None], values, 0.0).double().sum(dim=1))
    for i, order in enumerate(positions.order.tolist()):
        existing = [t for t in range(T) if there[i, t]]
        assert order[: len(existing)] == existing
        assert sorted(order) == list(range(T))


def test_totals_keep_what_float32_would_lose() -> None:
    rows = torch.full((100_000, 2), 1.0)
    rows[:, 1] = 0.1
    expected = rows.double().sum(dim=0)
    torch.testing.assert_close(total(rows), expected, rtol=1e-14, atol=0)
    assert total(rows.to(torch.complex64)).dtype == torch.complex128
