"""Positions and features as parts of one state: entanglement, and its collapse."""

import math

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.study.run import study


def _random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_entanglement_is_that_of_positions_and_features() -> None:
    a = _random(9, 5, 4, dtype=torch.complex128)
    joint = kw.Ket.normalized(a.flatten(1), dims=(5, 4))
    entropies = joint.entanglement_entropy([0])
    torch.testing.assert_close(entropies, joint.entanglement_entropy([1]))
    row = study(nn.Identity(), a)["(model)"]
    assert row.entanglement.value == pytest.approx(float(entropies.mean()), abs=1e-10)
    assert row.entanglement.stderr == pytest.approx(float(entropies.std()) / 3, rel=1e-9)
    assert row.rank_collapse.value == pytest.approx(1 - float(entropies.mean()) / 2, abs=1e-10)


def test_positions_that_hold_one_ket_are_collapsed() -> None:
    a = _random(9, 1, 4).expand(9, 5, 4) * torch.arange(1, 6)[:, None]
    row = study(nn.Identity(), a)["(model)"]
    assert row.entanglement.value == pytest.approx(0, abs=1e-12)
    assert row.rank_collapse.value == pytest.approx(1, abs=1e-12)


def test_entanglement_does_not_see_positions_that_do_not_exist() -> None:
    a = _random(6, 5, 4)
    present = torch.arange(5)[None] < torch.tensor([5, 3, 2, 4, 1, 5])[:, None]
    entropies = [
        float(kw.Ket.normalized(one[here].flatten(), dims=(int(here.sum()), 4)).entanglement_entropy([0]))
        for one, here in zip(a, present, strict=True)
    ]
    row = study(nn.Identity(), a, mask=present)["(model)"]
    assert row.kets == 20
    assert row.entanglement.value == pytest.approx(sum(entropies) / 6, abs=1e-12)


@pytest.mark.parametrize("shape", [(30, 200, 90), (30, 90, 200)])
def test_long_samples_count_with_all_their_positions(shape: tuple[int, int, int]) -> None:
    a = _random(*shape) * _random(1, 1, shape[2], seed=1) + _random(shape[0], 1, shape[2], seed=2)
    row = study(nn.Identity(), a, reading=kw.Reading(feature_axis=-1))["(model)"]
    entropies = kw.Ket.normalized(a.flatten(1), dims=shape[1:]).entanglement_entropy([0])
    assert row.entanglement.value == pytest.approx(float(entropies.mean()), abs=1e-9)
    assert row.entanglement.stderr == pytest.approx(float(entropies.std()) / 30**0.5, rel=1e-9)
    assert row.rank_collapse.value == pytest.approx(1 - float(entropies.mean()) / math.log2(90), abs=1e-9)


def test_a_memory_budget_does_not_change_the_entanglement() -> None:
    a = _random(200, 70, 130, dtype=torch.float32)
    settings = {"reading": kw.Reading(feature_axis=-1), "labels": False}
    exact = study(nn.Identity(), a, **settings)["(model)"]
    sketched = study(nn.Identity(), a, memory="1MB", **settings)["(model)"]
    assert sketched.sketch is not None
    for name in ("entanglement", "rank_collapse"):
        assert sketched.estimates[name].value == exact.estimates[name].value
        assert sketched.estimates[name].stderr == exact.estimates[name].stderr
