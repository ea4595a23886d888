"""One batch of one layer, reduced in a hook: zero vectors and values that are not finite are found when it is read."""

import pytest
import torch
from torch import Tensor

from ketwork.networks.activations import Activation, LayerInfo
from ketwork.networks.moments import (
    BatchKeys,
    BatchPart,
    EntropySolver,
    Keep,
    LayerAccumulator,
    NonFiniteActivationError,
    Positions,
    read_parts,
)

INFO = LayerInfo("layer", 0, "Identity", positions=True)
N, T, D = 30, 4, 6


def _values(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(N, T, D, generator=torch.Generator().manual_seed(0), dtype=dtype)


def _reduced(
    values: Tensor, keep: Keep, before: LayerAccumulator | None = None, seed: int = 1
) -> LayerAccumulator:
    keys = BatchKeys(torch.rand(N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    solver = EntropySolver()
    part = BatchPart.from_activation(
        Activation(INFO, values), Positions.of(values), keys, keep, solver, None, before
    )
    read_parts([part], solver)
    return part.finished()


@pytest.mark.parametrize("normalize", ["state", "ensemble"])
def test_zero_vectors_are_dropped_and_counted(normalize: str) -> None:
    values = _values()
    values[3] = 0
    values[5, :2] = 0
    row = _reduced(values, Keep(normalize))  # type: ignore[arg-type]
    flat = values.flatten(0, 1)
    flat = flat[flat.norm(dim=1) > 0]
    kets = flat if normalize == "ensemble" else flat / flat.norm(dim=1, keepdim=True)
    assert (row.samples, row.zeros, row.kets) == (N, T + 2, N * T - T - 2)
    assert row.norms == pytest.approx(float(flat.norm(dim=1).sum()))
    assert row.moment.weight == pytest.approx(float(kets.square().sum()))
    torch.testing.assert_close(row.moment.matrix(), kets.T @ kets, rtol=1e-12, atol=1e-12)
    assert row.entanglements is not None
    assert sorted(row.entanglements.positions.tolist()) == [2] + [T] * (N - 2)
    assert sorted(row.reservoir.counts.tolist()) == [0, 2] + [T] * (N - 2)


def test_few_vectors_stay_as_rows_without_the_zeros() -> None:
    values = _values()[:, :1]
    values = torch.cat([values, values.new_zeros(N, 1, D)], dim=1)
    wide = torch.nn.functional.pad(values, (0, 50))
    row = _reduced(wide, Keep())
    assert row.moment.rows is not None
    assert [len(rows) for rows in row.moment.rows] == [N] == [row.kets]


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_name_their_samples(odd: float) -> None:
    values = _values()
    values[[4, 9], 1, 2] = odd
    with pytest.raises(NonFiniteActivationError) as error:
        _reduced(values, Keep())
    assert error.value.samples == [4, 9]
    assert error.value.masked == (odd == -torch.inf)
    row = _reduced(values, Keep(skip_bad=True))
    good = [i for i in range(N) if i not in (4, 9)]
    kets = torch.nn.functional.normalize(values[good].flatten(0, 1), dim=1)
    assert (row.samples, row.dropped) == (N - 2, 2)
    torch.testing.assert_close(row.moment.matrix(), kets.T @ kets, rtol=1e-12, atol=1e-12)


def test_only_samples_that_would_stay_are_kept() -> None:
    """4 of 16 kept samples are the heaviest; of a batch to be added those heavier than the lightest of them."""
    keep = Keep("ensemble", samples=16)
    first = _reduced(_values(), keep)
    assert first.heaviest is not None
    assert len(first.heaviest.keys) == 4
    scale = torch.ones(N)
    scale[7] = 100
    second = _reduced(_values() * 0.5 * scale[:, None, None], keep, before=first, seed=2)
    assert second.heaviest is not None
    assert len(second.heaviest.keys) == 1
    assert bool((second.reservoir.keys < first.reservoir.worst).all())
    assert 0 < len(second.reservoir.keys) < 16
    assert len(_reduced(_values(), keep, seed=2).reservoir.keys) == 16
