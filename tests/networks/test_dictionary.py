"""README's dictionary on the network side: state ↔ activation, superposition, measurement, parts, mixtures."""

import math

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.study.run import study

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


def test_superposition_is_the_coherence_of_the_kets() -> None:
    alone, alike = torch.eye(8), torch.ones(8, 8)
    assert study(nn.Identity(), alone)["(model)"].ket_coherence.value == 0
    assert study(nn.Identity(), alike)["(model)"].ket_coherence.value == pytest.approx(3)
    a = _random(200, 8)
    p = (a / a.norm(dim=-1, keepdim=True)) ** 2
    expected = float(-(p * p.log2()).sum(-1)[:100].mean())
    row = study(nn.Identity(), a[:100])["(model)"]
    assert row.ket_coherence.value == pytest.approx(expected, rel=1e-12)
    mixed = (p[:100].mean(0), row.entropy.value)
    assert row.coherence.value == pytest.approx(
        float(-(mixed[0] * mixed[0].log2()).sum()) - mixed[1], abs=1e-12
    )


def test_a_data_set_is_a_mixed_state() -> None:
    a = _random(40, 6)
    kets, _ = kw.encode(a)
    expected = sum(torch.outer(k, k) for k in kets.amplitudes) / 40
    row = study(nn.Identity(), a)["(model)"]
    torch.testing.assert_close(row.density.matrix(), expected)
    values = torch.linalg.eigvalsh(expected)
    assert row.entropy.value == pytest.approx(float(-(values * values.log2()).sum()), abs=1e-12)
    assert row.effective_rank.value == pytest.approx(2**row.entropy.value, rel=1e-12)
    assert row.top_weight.value == pytest.approx(float(values[-1]), rel=1e-12)


def test_averaging_over_positions_is_a_partial_trace() -> None:
    a = _random(9, 5, 4, dtype=torch.complex128)  # samples, positions, features
    features = [kw.Ket.normalized(one, dims=(5, 4)).reduced([1]).matrix() for one in a.flatten(1)]
    weights = a.abs().square().sum(dim=(1, 2))
    expected = sum(w * rho for w, rho in zip(weights, features, strict=True)) / weights.sum()
    row = study(nn.Identity(), a, normalize="ensemble")["(model)"]
    torch.testing.assert_close(row.density.matrix(), expected)


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
