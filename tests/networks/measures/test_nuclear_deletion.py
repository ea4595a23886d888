"""The nuclear norm without each sample, against the singular values of what is left."""

import pytest
import torch
from torch import Tensor

from ketwork.networks.measures.nuclear_deletion import without_each


def orthonormal(c: Tensor) -> tuple[float, Tensor]:
    """The nuclear norm, and Σ|u⟩⟨v| over the singular values that are not 0."""
    u, sigma, v = torch.linalg.svd(c, full_matrices=False)
    some = sigma > 1e-9 * sigma[0]
    return float(sigma.sum()), u[:, some] @ v[some]


@pytest.mark.parametrize(
    ("rows", "widths", "rank"),
    [(1, (6, 9), 9), (1, (5, 5), 5), (4, (6, 9), 9), (3, (9, 6), 3), (4, (5, 5), 5)],
    ids=["one row", "square", "rows", "of lower rank", "square rows"],
)
def test_the_norm_without_each_sample(rows: int, widths: tuple[int, int], rank: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    n = 25
    x, y = (
        normal(n, rows, widths[0]),
        normal(n, rows, min(rank, widths[1])) @ normal(min(rank, widths[1]), widths[1]),
    )
    parts = x.mT @ y  # of each sample, (n, dx, dy)
    c = parts.sum(dim=0)
    u, sigma, v = torch.linalg.svd(c, full_matrices=False)
    some = sigma > 1e-9 * sigma[0]
    p, q = x @ u[:, some], y @ v[some].mT
    beside = (x @ x.mT - p @ p.mT, y @ y.mT - q @ q.mT)
    change, held = without_each(p, q, beside, sigma[some])
    norm, turn = orthonormal(c)
    for i, part in enumerate(parts):
        left, other = orthonormal(c - part)
        first = float((part * turn).sum())
        assert float(change[i]) == pytest.approx(left - norm + first, abs=5e-6 * norm)
        assert float(held[i]) == pytest.approx(float((part * other).sum()) - first, abs=5e-6 * norm)
        assert float(change[i]) > -5e-6 * norm  # the norm is convex
        assert float(held[i]) < -float(change[i]) + 5e-6 * norm


def test_missing_rows_change_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    p, q = (torch.randn(8, 2, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    none = torch.zeros(8, 2, 2, dtype=torch.float64)
    sigma = torch.tensor([9.0, 6.0, 5.0, 3.0], dtype=torch.float64)
    wide = [torch.nn.functional.pad(part, (0, 0, 0, 3)) for part in (p, q)]
    padded = torch.zeros(8, 5, 5, dtype=torch.float64)
    for alone, more in zip(
        without_each(p, q, (none, none), sigma), without_each(*wide, (padded, padded), sigma), strict=True
    ):
        assert more == pytest.approx(alone, abs=1e-10)
