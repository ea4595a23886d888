"""README's dictionary on the network side: state ↔ activation, superposition, measurement, parts, mixtures."""

import math

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def _random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _rounding(dtype: torch.dtype) -> float:
    return 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_is_the_activation_over_its_norm(dtype: torch.dtype) -> None:
    a = _random(7, 3, 5, dtype=dtype)
    ket, norm = kw.encode(a)
    assert ket.amplitudes.dtype == dtype
    assert norm.shape == (7, 3)
    torch.testing.assert_close(ket.amplitudes, a / a.abs().square().sum(-1, keepdim=True).sqrt())
    torch.testing.assert_close(ket.amplitudes.abs().square().sum(-1), torch.ones_like(norm))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(900, 700), (3, 250, 700), (700, 900)])
def test_many_kets_at_once_are_those_of_each(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Norms of so many rows are taken in parts; features on the first axis are not beside each other in memory."""
    a = _random(*shape, dtype=dtype) * 1e25
    for axis in (0, -1):
        ket, norm = kw.encode(a, axis=axis)
        rows = a.movedim(axis, -1)
        assert norm.shape == rows.shape[:-1]
        one_by_one = [kw.encode(row) for row in rows.flatten(0, -2)[::97]]
        torch.testing.assert_close(
            ket.amplitudes.flatten(0, -2)[::97], torch.stack([one.amplitudes for one, _ in one_by_one])
        )
        torch.testing.assert_close(norm.flatten()[::97], torch.stack([one for _, one in one_by_one]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_decode_undoes_encode(dtype: torch.dtype, axis: int) -> None:
    a = _random(4, 6, 5, dtype=dtype)
    back = kw.decode(*kw.encode(a, axis=axis), axis=axis)
    assert back.shape == a.shape
    assert float((back - a).abs().max()) <= _rounding(dtype) * float(a.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_adds_the_centre_back(dtype: torch.dtype) -> None:
    a = _random(50, 5, dtype=dtype) + 10
    center = a.mean(dim=0)
    ket, norm = kw.encode(a, center=center)
    torch.testing.assert_close(ket.amplitudes * norm[:, None], a - center)
    back = kw.decode(ket, norm, center=center)
    assert float((back - a).abs().max()) <= _rounding(dtype) * 20


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_narrow_numbers_are_widened_and_come_back_exactly(narrow: torch.dtype) -> None:
    a = _random(40, 9).to(narrow)
    ket, norm = kw.encode(a)
    assert ket.amplitudes.dtype == norm.dtype == torch.float32
    assert torch.equal(kw.decode(ket, norm).to(narrow), a)


def test_zero_vectors_come_back_as_zeros() -> None:
    a = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, -4.0]])
    ket, norm = kw.encode(a)
    assert norm.tolist() == [0.0, 5.0]
    assert ket.amplitudes[0].tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(kw.decode(ket, norm), a)


@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-30, 1e-20, 1e18, 1e37])
def test_huge_and_tiny_values_keep_their_direction(size: float) -> None:
    a = torch.tensor([[3.0, -4.0, 0.0]]) * size
    ket, norm = kw.encode(a)
    # Below 1e-38 float32 numbers are denormal: they hold the fewer digits the smaller they are.
    digits = max(1e-6, 1.5e-45 / size)
    torch.testing.assert_close(ket.amplitudes, torch.tensor([[0.6, -0.8, 0.0]]), rtol=0, atol=digits)
    assert norm.item() == pytest.approx(5 * size, rel=digits)
    torch.testing.assert_close(kw.decode(ket, norm), a, rtol=max(1e-6, digits), atol=0)


@pytest.mark.parametrize("size", [1e-310, 1e-250, 1e-160, 1e160, 1e300])
def test_the_same_in_double_precision(size: float) -> None:
    a = torch.tensor([[3.0, -4.0, 1e-3]], dtype=torch.float64) * size
    ket, norm = kw.encode(a)
    expected = torch.tensor([[3.0, -4.0, 1e-3]], dtype=torch.float64)
    digits = max(1e-14, 5e-324 / size)
    torch.testing.assert_close(ket.amplitudes, expected / expected.norm(), rtol=0, atol=digits)
    assert norm.item() == pytest.approx(float(expected.norm()) * size, rel=digits)


def test_rows_of_every_size_in_one_activation() -> None:
    sizes = torch.tensor([0.0, 1e-40, 1e-25, 1.0, 1e25, 1e38])
    ket, _ = kw.encode(sizes[:, None] * torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(ket.amplitudes[:, 0], torch.ones(6))


def test_complex_activations_keep_their_phases() -> None:
    a = _random(20, 6, dtype=torch.complex128)
    ket, _ = kw.encode(a)
    torch.testing.assert_close(ket.amplitudes.angle(), a.angle())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="Argument `activation` must be finite"):
        kw.encode(torch.tensor([[1.0, bad]]))


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Argument `activation` must be a floating-point.*int64"):
        kw.encode(torch.tensor([[1, 2]]))


def test_a_pre_activation_is_an_overlap() -> None:
    layer = nn.Linear(6, 4, dtype=torch.float64)
    x = _random(10, 6)
    inputs, lengths = kw.encode(x)
    weights, sizes = kw.encode(layer.weight.detach())
    overlaps = torch.stack([weights[j].overlap(inputs) for j in range(4)], dim=-1)  # ⟨ŵⱼ|x̂⟩
    z = sizes * lengths[:, None] * overlaps + layer.bias.detach()
    torch.testing.assert_close(z, layer(x).detach())


def test_softmax_is_borns_rule() -> None:
    logits = _random(8, 5)
    ket, norm = kw.encode((logits / 2).exp())
    torch.testing.assert_close(ket.probabilities(), logits.softmax(dim=-1))
    torch.testing.assert_close(norm.square(), logits.exp().sum(dim=-1))


def test_a_layer_of_two_neurons_is_a_qubit_on_the_bloch_sphere() -> None:
    ket, _ = kw.encode(_random(30, 2, dtype=torch.complex128))
    bloch = ket.bloch()
    torch.testing.assert_close(bloch.norm(dim=-1), torch.ones(30, dtype=torch.float64))
    real, _ = kw.encode(torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, -1.0]]))
    torch.testing.assert_close(real.bloch(), torch.tensor([[1.0, 0, 0], [0, 0, 1], [-1, 0, 0]]))
