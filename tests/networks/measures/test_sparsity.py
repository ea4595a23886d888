"""Activation sparsity of rectified layers against counts, its error against repetition, and its sums added up."""

from pathlib import Path

import pytest
import torch
from torch import nn

import ketwork as kw


def test_it_counts_zeros_of_existing_positions_and_of_zero_vectors() -> None:
    x = torch.randn(50, 7, 4, generator=torch.Generator().manual_seed(0))
    x[3] = -1  # rectified to zero vectors
    mask = torch.rand(50, 7, generator=torch.Generator().manual_seed(1)) > 0.3
    layer = kw.study(nn.ReLU(), x, mask=mask, batch_size=9)["(model)"]
    assert layer.sparsity == pytest.approx(float((x[mask].relu() == 0).double().mean()), abs=1e-15)
    assert layer.zero > 0


def test_its_error_is_that_of_repeated_data_and_counts_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(200):
        # All positions of a sample share their signs: 40 independent numbers, not 400.
        x = torch.randn(40, 1, 1, generator=draw).expand(40, 10, 1)
        measured = kw.study(nn.ReLU(), x)["(model)"].sparsity
        values.append(measured.value)
        errors.append(measured.stderr)
    spread = float(torch.tensor(values).std())
    assert spread == pytest.approx((0.25 / 40) ** 0.5, rel=0.15)
    assert sum(errors) / 200 == pytest.approx(spread, rel=0.15)


def test_parts_add_up_also_from_files(tmp_path: Path) -> None:
    x = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
    a, b = kw.study(net, x[:30]), kw.study(net, x[30:])
    a.save(tmp_path / "a")
    total, complete = (kw.Study.load(tmp_path / "a") + b)["1"].sparsity, kw.study(net, x)["1"].sparsity
    assert (total.value, total.stderr) == pytest.approx((complete.value, complete.stderr), rel=1e-12)


def test_a_record_without_the_sum_has_no_number() -> None:
    old = Path(__file__).parents[2] / "records" / "version_0_1" / "study.safetensors"
    assert kw.Study.load(old).table()["sparsity"].isna().all()
