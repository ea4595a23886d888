"""Rows that are compared: pairs of reals for complex values, positions that exist, memory of their own."""

import pytest
import torch

from ketwork.networks.moments.pooling import UNITS, sample_rows
from ketwork.networks.moments.positions import Positions


def test_complex_activations_count_as_pairs_of_real_features() -> None:
    values = torch.randn(5, 1, 3, dtype=torch.complex64)
    rows = sample_rows(values, Positions.of(values), normalize="ensemble")
    assert rows.shape == (5, 6)
    torch.testing.assert_close(rows @ rows.T, (values[:, 0] @ values[:, 0].mH).real)


def test_nan_where_no_position_exists_does_no_harm() -> None:
    values = torch.ones(2, 3, 4)
    present = torch.tensor([[True, True, False], [False, False, False]])
    values[0, 2] = values[1] = torch.nan
    rows = sample_rows(values, Positions.of(values, present), normalize="ensemble")
    torch.testing.assert_close(rows, torch.tensor([[1.0] * 4, [0.0] * 4]))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_rows_have_memory_of_their_own(unit: str, positions: int, masked: bool) -> None:
    values = torch.randn(4, positions, 5)
    present = torch.ones(4, positions, dtype=torch.bool) if masked else None
    rows = sample_rows(values, Positions.of(values, present), unit_of=unit, normalize="ensemble")
    before = rows.clone()
    values.zero_()
    torch.testing.assert_close(rows, before, rtol=0, atol=0)
