"""A study that keeps its layers' rows compares them as `compare` does, from the same pass."""

from pathlib import Path

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.activations.reading import Reading


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10), nn.Tanh())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_numbers_are_those_of_compare(network: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    study = kw.study(network, images, compare=True)
    expected = kw.compare(network, images)
    study.save(tmp_path / "study.safetensors")
    for found in (study.compare(), kw.Study.load(tmp_path / "study.safetensors").compare()):
        assert list(found.matrices) == list(expected.matrices)
        for name, matrix in expected.matrices.items():
            torch.testing.assert_close(found.matrices[name], matrix, rtol=0, atol=1e-12, equal_nan=True)
        for how in ("unit", "normalize", "center"):  # the study's own kets have weight 1 and are not centred
            assert found.settings[how] == expected.settings[how]
        assert found.cka.index.to_list() == [layer.name for layer in study]


def test_without_the_rows_the_remedy_is_named(network: nn.Module, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="compare=True"):
        kw.study(network, images).compare()


class Overflows(nn.Module):
    """Large values become NaN, as in a narrow network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.abs() > 50, torch.nan, x)


def test_a_sample_left_out_at_one_layer_is_compared_at_none(network: nn.Module, images: torch.Tensor) -> None:
    narrow = nn.Sequential(*network[:4], Overflows())
    spoilt = torch.cat([images[:50], 1e4 * images[:1], images[50:]])  # finite until the last layer
    study = kw.study(narrow, spoilt, compare=True, reading=Reading(skip_bad=True))
    expected = kw.compare(narrow, images, measures=["cka"])
    assert [layer.N for layer in study] == [201, 201, 201, 200]
    assert study.compare().n == 200
    torch.testing.assert_close(study.compare().matrices["cka"], expected.matrices["cka"], rtol=0, atol=1e-9)
