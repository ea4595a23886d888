"""Streaming moments equal those of all rows at once, in any grouping, and where means are large."""

import torch
from torch import Tensor

from ketwork.networks.compression.covariance import Scatter


def rows(n: int = 700, p: int = 5, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, generator=draw, dtype=torch.float64) @ torch.randn(
        p, p, generator=draw, dtype=torch.float64
    )


def test_parts_merge_to_the_whole_in_any_grouping() -> None:
    x, y = rows(), rows(seed=1)[:, :3]
    whole = torch.cov(torch.cat([x, y], dim=1).T, correction=0)
    for cuts in ([700], [1, 699], [350, 350], [13, 0, 600, 87]):
        parts = [Scatter.of(a, b) for a, b in zip(x.split(cuts), y.split(cuts), strict=True)]
        left, right = parts[0], parts[-1]
        for part in parts[1:]:
            left = left + part
        for part in reversed(parts[:-1]):
            right = part + right
        for found in (left, right):
            assert found.n == 700
            torch.testing.assert_close(found.covariance(), whole[:5, 5:])
            torch.testing.assert_close(found.left, x.mean(0))
            torch.testing.assert_close(found.right, y.mean(0))


def test_addition_changes_neither_part() -> None:
    a, b = Scatter.of(rows()), Scatter.of(rows(seed=2))
    before = a.total.clone(), b.total.clone()
    together = a + b
    torch.testing.assert_close((a.total, b.total), before, atol=0, rtol=0)
    a += b
    torch.testing.assert_close(a.total, together.total)


def test_a_large_mean_takes_no_digits_from_float32_rows() -> None:
    x = rows(20_000)
    far = (x + 3000).float()
    exact = torch.cov(far.double().T, correction=0)
    found = Scatter.of(far[:9000]) + Scatter.of(far[9000:])
    assert (found.covariance() - exact).norm() < 2e-5 * exact.norm()
    naive = (far.T @ far).double() / len(far) - torch.outer(far.double().mean(0), far.double().mean(0))
    assert (naive - exact).norm() > 1e-2 * exact.norm()  # what it would be uncentred


def test_half_precision_rows_are_multiplied_in_float32() -> None:
    x = rows(2000).bfloat16()
    exact = torch.cov(x.double().T, correction=0)
    torch.testing.assert_close(Scatter.of(x).covariance(), exact, atol=1e-4, rtol=1e-4)
