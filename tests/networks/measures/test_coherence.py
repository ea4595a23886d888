"""How much superposition there is in a layer: closed forms of the relative entropy of coherence."""

import math

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.study.layer import Layer
from ketwork.networks.study.run import study


def _gaussian(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _state(data: Tensor, **settings: object) -> Layer:
    return study(nn.Identity(), data, **settings)["(model)"]  # type: ignore[arg-type]


def test_superposition_is_the_coherence_of_the_kets() -> None:
    alone, alike = torch.eye(8), torch.ones(8, 8)
    assert study(nn.Identity(), alone)["(model)"].ket_coherence.value == 0
    assert study(nn.Identity(), alike)["(model)"].ket_coherence.value == pytest.approx(3)
    a = _gaussian(200, 8)
    p = (a / a.norm(dim=-1, keepdim=True)) ** 2
    expected = float(-(p * p.log2()).sum(-1)[:100].mean())
    row = study(nn.Identity(), a[:100])["(model)"]
    assert row.ket_coherence.value == pytest.approx(expected, rel=1e-12)
    mixed = (p[:100].mean(0), row.entropy.plain)
    assert row.coherence.plain == pytest.approx(
        float(-(mixed[0] * mixed[0].log2()).sum()) - mixed[1], abs=1e-12
    )


@pytest.mark.parametrize(
    ("d", "complex_", "nats"),
    [(2, True, 0.5), (2, False, 2 * math.log(2) - 1), (64, True, 3.74389), (64, False, 3.44479)],
)
def test_coherence_of_random_kets(d: int, complex_: bool, nats: float) -> None:
    dtype = torch.complex128 if complex_ else torch.float64
    row = _state(_gaussian(20000, d, dtype=dtype), batch_size=4096)
    value, error = row.ket_coherence.value * math.log(2), row.ket_coherence.stderr * math.log(2)
    assert abs(value - nats) < 4 * error
    assert error < 0.03
    assert row.coherence.value == pytest.approx(0, abs=0.01)  # their mixture is the maximally mixed state


def test_coherence_of_uniform_superpositions() -> None:
    row = _state(torch.ones(10, 16))
    assert row.coherence.value == pytest.approx(4)
    assert row.ket_coherence.value == pytest.approx(4)
