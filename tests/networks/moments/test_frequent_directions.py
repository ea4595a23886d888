"""The Frequent Directions sketch: its certified error on adversarial, random and real data, merged in any order."""

import pytest
import torch
from torch import Tensor

from ketwork.networks.moments.frequent_directions import FrequentDirections


def _draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _decaying(n: int, d: int, power: float, seed: int = 0) -> Tensor:
    rows = torch.randn(n, d, generator=_draw(seed), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=_draw(seed + 1), dtype=torch.float64)).Q
    return (rows * torch.arange(1, d + 1).double() ** -power) @ turn


def _rotating(n: int, d: int) -> Tensor:
    """Long runs of one basis vector after the other, weak first: each is new when it comes."""
    places = torch.arange(n) * d // n
    return torch.nn.functional.one_hot(places, d).double() * (1 + places[:, None].double() / d)


def _alternating(n: int, d: int, rank: int) -> Tensor:
    """What makes plain truncation forget: ℓ strong directions, then one weak one at a time, again and again."""
    strong = torch.eye(d, dtype=torch.float64)[torch.arange(n) % rank] * 1.5
    weak = torch.eye(d, dtype=torch.float64)[rank + torch.arange(n) % (d - rank)]
    return torch.stack([strong, weak], dim=1).flatten(0, 1)


DATA = {
    "flat": lambda: _decaying(500, 40, 0.0),
    "decaying": lambda: _decaying(500, 40, 1.0),
    "steep": lambda: _decaying(500, 40, 3.0),
    "rotating": lambda: _rotating(600, 40),
    "alternating": lambda: _alternating(300, 40, 8),
    "one direction": lambda: torch.ones(300, 40, dtype=torch.float64),
    "complex": lambda: torch.complex(_decaying(500, 40, 1.0), _decaying(500, 40, 0.5, seed=7)),
}


def _certified(sketch: FrequentDirections, rows: Tensor) -> float:
    """Asserts what a sketch claims of the rows, and returns its true error over its bound."""
    left = rows.mH @ rows - sketch.rows.mH @ sketch.rows
    values = torch.linalg.eigvalsh(left)
    whole = float(rows.abs().square().sum())
    assert float(values[0]) >= -1e-12 * whole
    assert float(values[-1]) <= sketch.slack + 1e-12 * whole
    assert float(left.diagonal().real.sum()) == pytest.approx(sketch.lost, abs=1e-10 * whole)
    assert (sketch.rank + 1) * sketch.slack <= sketch.lost + 1e-10 * whole
    tails = torch.linalg.eigvalsh(rows.mH @ rows).flip(0).clamp(min=0)
    for k in range(sketch.rank + 1):  # ‖A − A_k‖²/(ℓ + 1 − k), the bound of Ghashami et al. for every k
        assert sketch.slack <= float(tails[k:].sum()) / (sketch.rank + 1 - k) + 1e-10 * whole
    return float(values[-1]) / sketch.slack if sketch.slack else 0.0


@pytest.mark.parametrize("rank", [1, 4, 8, 15])
@pytest.mark.parametrize("kind", DATA)
def test_the_bound_is_certified(kind: str, rank: int) -> None:
    rows = DATA[kind]()
    sketch = FrequentDirections.empty(40, rank=rank, like=rows)
    for batch in rows.split(37):
        sketch.add(batch)
    assert len(sketch.rows) <= 2 * rank
    tightness = _certified(sketch, rows)
    if kind in ("decaying", "complex") and rank >= 4:
        assert tightness > 0.5  # and says little more than it must


@pytest.mark.parametrize("rank", [6, 10])
def test_exact_up_to_the_rank(rank: int) -> None:
    rows = torch.randn(900, 6, generator=_draw(3), dtype=torch.float64) @ torch.randn(
        6, 40, generator=_draw(4), dtype=torch.float64
    )
    sketch = FrequentDirections.empty(40, rank=rank, like=rows)
    sketch.add(rows)
    whole = float(rows.square().sum())
    assert sketch.slack < 1e-13 * whole
    torch.testing.assert_close(sketch.rows.mH @ sketch.rows, rows.mH @ rows, rtol=0, atol=1e-12 * whole)
