"""Entropies of many matrices at once are those of each."""

import math

import pytest
import torch

from ketwork.networks.moments import entropy_solver
from ketwork.networks.moments.entropy_solver import EntropySolver


@pytest.mark.parametrize("waiting", [0, 1 << 30])
def test_stacks_of_several_sizes_and_kinds(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy_solver, "MOST_WAITING", waiting)
    draw, solver = torch.Generator().manual_seed(0), EntropySolver()
    stacks, results = [], []
    for n, size, dtype in ((3, 4, torch.float64), (2, 7, torch.complex128), (5, 4, torch.float64)):
        rows = torch.randn(n, size, size, generator=draw, dtype=dtype)
        stacks.append(rows @ rows.mH)
        results.append(torch.full((n + 1,), -1.0, dtype=torch.float64))
        solver.add(stacks[-1], results[-1], torch.arange(n).flip(0))
        assert bool((results[-1][0] >= 0) == (waiting == 0))
    solver.run()
    for stack, result in zip(stacks, results, strict=True):
        for gram, entropy in zip(stack, result[:-1].flip(0), strict=True):
            values = torch.linalg.eigvalsh(gram / gram.diagonal().sum())
            assert float(entropy) == pytest.approx(-float((values * values.log()).sum()) / math.log(2))
        assert float(result[-1]) == -1
    solver.add(torch.full((1, 2, 2), torch.nan).double(), results[0], torch.tensor([0]))
    solver.run()  # of a layer that is refused for its NaN: no error
    solver.add(stacks[0], results[0], torch.arange(3))
    solver.clear()
    results[0][:] = -1
    solver.run()
    assert results[0].tolist() == [-1] * 4
