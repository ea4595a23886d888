"""Kets and density operators: making them, drawing from them, collapsing them, and their edges."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ketwork.quantum import (
    Density,
    Ensemble,
    Ket,
    entropy,
    fidelity,
    purity,
    random_density,
    random_ket,
    random_unitary,
    trace_distance,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square(outcomes: Tensor, p: Tensor) -> float:
    """Deviation of drawn outcomes from p in standard deviations of χ² (normal for many degrees of freedom)."""
    counts = torch.bincount(outcomes.flatten(), minlength=len(p)).double()
    expected = p.double() * outcomes.numel()
    assert (counts[p == 0] == 0).all()
    kept = expected > 0
    chi2 = ((counts - expected)[kept].square() / expected[kept]).sum().item()
    freedom = int(kept.sum()) - 1
    return (chi2 - freedom) / math.sqrt(2 * freedom)


# Making them
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype: torch.dtype) -> None:
    assert Ket(torch.tensor([0.0, 1.0], dtype=dtype)).dtype == torch.float32
    assert Ket.normalized(torch.tensor([3.0, 4.0], dtype=dtype)).amplitudes.tolist() == pytest.approx(
        [0.6, 0.8]
    )
    assert Density.from_factor(torch.eye(2, dtype=dtype), normalize=True).dtype == torch.float32


def test_lists_and_arrays_are_taken() -> None:
    assert Ket([0.6, 0.8]).dtype == torch.float32
    assert Ket(np.array([0.6, 0.8])).dtype == torch.float64
    assert Density.from_matrix(np.eye(2) / 2).dtype == torch.float64


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-42])
def test_normalizing_neither_under_nor_overflows(scale: float) -> None:
    x = torch.tensor([3 * scale, 4 * scale])
    assert Ket.normalized(x).amplitudes.tolist() == pytest.approx([0.6, 0.8], abs=1e-3)


def test_the_phase_is_kept() -> None:
    ket = Ket.normalized(torch.tensor([1j, 1 + 0j]))
    bra = Ket.normalized(torch.tensor([1 + 0j, 1 + 0j]))
    assert bra.overlap(ket).item() == pytest.approx(0.5 + 0.5j)
    assert ket.overlap(bra).item() == pytest.approx(0.5 - 0.5j)
    wanted = torch.tensor([[0.5, 0.5j], [-0.5j, 0.5]])
    torch.testing.assert_close(ket.density().matrix(), wanted)
    torch.testing.assert_close(Density.from_kets(ket.amplitudes[None]).matrix(), wanted)


def test_the_form_follows_the_shape() -> None:
    assert Density.from_factor(torch.eye(4)[:3], normalize=True).factored
    assert not Density.from_factor(torch.eye(4), normalize=True).factored
    assert not random_density(3, 7).factored
    assert not Ket.basis(0, 1).density().factored
    assert random_ket(12, dims=(2, 6)).reduced([1]).factored
    assert not random_ket(12, dims=(2, 6)).reduced([0]).factored


def test_weights() -> None:
    rho = Density.from_kets(
        torch.eye(3, dtype=torch.float64), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    )
    assert rho.spectrum().tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert entropy(rho).item() == pytest.approx(1.5)


def test_reprs() -> None:
    assert repr(random_density(384, 64, dtype=torch.float64)) == "Density(d=384, rank≤64, float64)"
    assert repr(random_density(6, 6, (2,), dims=(2, 3))) == "Density(batch=(2,), d=2×3, complex128)"
    assert repr(Ket.basis(torch.arange(3), 3)) == "Ket(batch=(3,), d=3, float32)"


def test_frozen_and_moved() -> None:
    ket = random_ket(4, (2,), dims=(2, 2))
    with pytest.raises(AttributeError):
        ket.dims = (4,)  # type: ignore[misc]
    small = ket.to(torch.complex64)
    assert (small.dtype, small.dims, small.batch_shape) == (torch.complex64, (2, 2), (2,))
    assert ket.density().to("cpu", torch.complex64).dtype == torch.complex64
    meta = random_density(4, 2).to("meta")
    assert meta.device.type == "meta"


def stack(states: list[Ket | Density]) -> Ket | Density:
    """The states of an ensemble of them."""
    return Ensemble(torch.full((len(states),), 1 / max(len(states), 1)), states).states


def test_states_of_an_ensemble_are_padded_and_promoted() -> None:
    a, b, c = (
        random_ket(6, seed=seeded(1)),
        random_density(6, 2, seed=seeded(2)),
        random_density(6, 6),
    )
    kets = stack([a, random_ket(6, dtype=torch.float64)])
    assert isinstance(kets, Ket)
    assert kets.dtype == torch.complex128
    both = stack([a, b])
    assert isinstance(both, Density)
    assert both.factored
    torch.testing.assert_close(both[0].matrix(), a.density().matrix())
    torch.testing.assert_close(both[1].matrix(), b.matrix())
    everything = stack([a, b, c])
    torch.testing.assert_close(purity(everything), torch.stack([purity(s) for s in (a, b, c)]))


@pytest.mark.parametrize("rows", [100, 2000])
def test_float32_data_keep_their_digits(rows: int) -> None:
    """A float32 sum of 768,000 squares is off by 1e−4; the trace, and the entropy with it, must not be."""
    x = torch.randn(rows, 384, dtype=torch.float64, generator=seeded(1)) * torch.logspace(0, -3, 384)
    exact = Density.from_factor(x, normalize=True)
    for rho in (Density.from_factor(x.float(), normalize=True), exact.to(torch.float32)):
        assert rho.dtype == torch.float32
        assert rho.spectrum().double().sum().item() == pytest.approx(1, abs=1e-6)
        assert entropy(rho).item() == pytest.approx(entropy(exact).item(), abs=2e-6)
        assert trace_distance(rho, exact).item() < 1e-6


# Drawing and collapsing
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_born(dtype: torch.dtype) -> None:
    x = torch.randn(40, dtype=dtype, generator=seeded(3))
    x[[0, 7, 39]] = 0
    ket = Ket.normalized(x)
    basis = random_unitary(40, dtype=dtype, seed=seeded(4))
    for state in (ket, ket.density(), Density.from_matrix(ket.density().matrix())):
        assert abs(chi_square(state.measure(200_000, seed=seeded(5)), state.probabilities())) < 4
        turned = state.measure(200_000, basis=basis, seed=seeded(6))
        assert abs(chi_square(turned, state.probabilities(basis))) < 4


def test_shapes_of_outcomes() -> None:
    kets = random_ket(5, (3, 2))
    one, many = kets.measure(seed=seeded(0)), kets.measure(7, seed=seeded(0))
    assert (one.dtype, one.shape, many.shape) == (torch.int64, (3, 2), (3, 2, 7))
    assert torch.equal(kets.measure(7, seed=seeded(0)), many)
    assert kets.measure(0).shape == (3, 2, 0)


def test_a_measurement_repeated_gives_the_same() -> None:
    kets = random_ket(6, (100,), seed=seeded(1))
    outcome = kets.measure(seed=seeded(2))
    after = kets.collapse(outcome)
    assert torch.equal(after.measure(seed=seeded(3)), outcome)
    assert torch.equal(after.measure(50, seed=seeded(4)), outcome[:, None].expand(-1, 50))
    phase = kets.amplitudes.gather(1, outcome[:, None]).squeeze(1)
    torch.testing.assert_close(after.amplitudes.gather(1, outcome[:, None]).squeeze(1), phase / phase.abs())


# Edges
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_one_dimension(dtype: torch.dtype) -> None:
    ket = Ket.normalized(torch.tensor([-3.0], dtype=dtype))
    rho = ket.density()
    assert (entropy(rho).item(), purity(rho).item(), rho.coherence().item()) == (0, 1, 0)
    assert fidelity(rho, ket).item() == pytest.approx(1)
    assert trace_distance(rho, rho).item() == 0
    assert ket.measure(3).tolist() == [0, 0, 0]


def test_empty_batches() -> None:
    ket = Ket(torch.empty(0, 6, dtype=torch.float64), (2, 3))
    for rho in (ket.density(), Density(torch.empty(0, 6, 6, dtype=torch.float64), False, (2, 3))):
        values = (entropy(rho), purity(rho), rho.coherence(), fidelity(rho, rho), trace_distance(rho, rho))
        assert all(v.shape == (0,) for v in values)
        assert rho.reduced(1).matrix().shape == (0, 2, 2)
        assert rho.spectrum().shape == (0, 6)
        assert rho.measure(4).shape == (0, 4)
    assert ket.collapse(0).batch_shape == (0,)


def test_one_ket_is_pure() -> None:
    rho = Density.from_kets(random_ket(9, (1,)))
    assert entropy(rho).item() == pytest.approx(0, abs=1e-13)
    assert rho.effective_rank().item() == pytest.approx(1)
    assert rho.spectrum()[1:].abs().max() == 0


def test_a_real_and_a_complex_state_meet() -> None:
    a, b = random_density(6, 2, dtype=torch.float32), random_density(6, 2)
    assert fidelity(a, b).dtype == torch.float64
    torch.testing.assert_close(fidelity(a, b), fidelity(a.to(torch.complex128), b))
    dense = Density.from_matrix(b.matrix())
    torch.testing.assert_close(trace_distance(a, b), trace_distance(a, dense))


def test_iteration_ends() -> None:
    assert len(list(random_ket(3, (4,)))) == 4


# Bad input
NAN = torch.tensor([math.nan, 1.0])
SKEW = torch.tensor([[0.5, 0.4], [0.0, 0.5]])
BAD = [
    (
        lambda: Ket([1, 0]),
        TypeError,
        r"`amplitudes` must have a floating-point .* torch.int64. Use `.double\(\)`",
    ),
    (
        lambda: Ket([0.5, 0.5]),
        ValueError,
        r"`amplitudes` must have norm 1, but has norm 0.7071.*Ket.normalized",
    ),
    (lambda: Ket(NAN), ValueError, "`amplitudes` must be finite, but 1 of its 2 entries"),
    (lambda: Ket(1.0), ValueError, r"`amplitudes` must have shape \(\*batch, d\)"),
    (lambda: Ket(torch.empty(3, 0)), ValueError, "d ≥ 1"),
    (lambda: Ket([0.6, 0.8], (2, 2)), ValueError, r"`dims` must be positive with product 2, but is \(2, 2\)"),
    (
        lambda: Ket.normalized(torch.eye(3)[:2] * torch.tensor([0.0, 1, 1])),
        ValueError,
        "1 of its 2 vectors are zero",
    ),
    (lambda: Ket.basis(3, 3), ValueError, "`i` must lie in 0 … 2, but is 3"),
    (lambda: Ket([1.0, 0.0]).collapse(1), ValueError, "positive probability"),
    (lambda: Ket([1.0, 0.0]).collapse(2), ValueError, "`outcome` must lie in 0 … 1"),
    (lambda: Ket([1.0, 0.0]).measure(-1), ValueError, "`shots` must be"),
    (lambda: Ket([1.0, 0.0]).reduced([1]), ValueError, "`keep` must choose one or more of the 1 subsystems"),
    (lambda: Ket([1.0, 0.0]).schmidt(1), ValueError, "`cut` must choose some but not all .* `dims=`"),
    (lambda: Ket([1.0, 0.0])[0], IndexError, "no batch axis"),
    (lambda: random_ket(3, (2,))[0, 0], IndexError, "too many indices"),
    (lambda: random_ket(3).bloch(), ValueError, "d = 2, but the state has d = 3"),
    (lambda: random_ket(3).to(torch.float64), TypeError, "must be complex"),
    (lambda: Ket([1.0, 0.0]).to(torch.int64), TypeError, "must be floating-point or complex"),
    (lambda: Ket([1.0, 0.0]).overlap(random_ket(3)), ValueError, "equal d, but have 2 and 3"),
    (lambda: Density.from_kets([0.6, 0.8]), ValueError, r"N, d\) with N ≥ 1.*ket.density"),
    (
        lambda: Density.from_kets(torch.eye(2), [0.5, 0.4]),
        ValueError,
        "`weights` must have sum 1, but has sum 0.9",
    ),
    (
        lambda: Density.from_kets(torch.eye(2), [1.5, -0.5]),
        ValueError,
        "`weights` must be non-negative, but has -0.5",
    ),
    (
        lambda: Density.from_factor(torch.eye(3)),
        ValueError,
        "trace A†A 1, but has trace A†A 3.*normalize=True",
    ),
    (lambda: Density.from_factor(torch.zeros(2, 3), normalize=True), ValueError, "`a` must not be zero"),
    (
        lambda: Density.from_matrix(torch.ones(2, 3)),
        ValueError,
        r"`m` must be square, but has shape \(2, 3\)",
    ),
    (
        lambda: Density.from_matrix(SKEW),
        ValueError,
        r"must be Hermitian, but differs .* 0.4.*\(m \+ m.mH\) / 2",
    ),
    (lambda: Density.from_matrix(torch.eye(2)), ValueError, "trace 1, but has trace 2.*normalize=True"),
    (
        lambda: Density.from_matrix(torch.diag(torch.tensor([1.5, -0.5]))),
        ValueError,
        "negative eigenvalue, but has -0.5",
    ),
    (lambda: Density.from_matrix(-torch.eye(2), normalize=True), ValueError, "positive trace"),
    (lambda: Density.maximally_mixed(0), ValueError, "`d` must be ≥ 1"),
    (lambda: random_density(3).eigenstates(4), ValueError, "`k` must lie in 1 … 3"),
    (lambda: random_density(3).entropy(base=1), ValueError, "`base` must be above 1, but is 1"),
    (lambda: random_density(3).expect(torch.eye(2)), ValueError, "equal d, but have 2 and 3"),
    (lambda: random_density(3).mix(random_ket(3), 1.5), ValueError, r"`weight` must lie in \[0, 1\]"),
    (
        lambda: random_density(2).coherence(torch.ones(2, 2)),
        ValueError,
        "orthonormal columns, but they are off by 2",
    ),
    (lambda: random_density(2).coherence(torch.eye(3)), ValueError, r"`basis` must have shape \(2, 2\)"),
    (lambda: stack([]), ValueError, "at least one state"),
    (lambda: Ensemble([1.0], Ket([1.0, 0.0])), ValueError, "label axis"),
    (lambda: Ensemble([0.5, 0.5], [Ket([1.0, 0.0])]), ValueError, "equal d|`probabilities` and `states`"),
    (lambda: fidelity(random_ket(2), random_ket(3)), ValueError, "`rho` and `sigma` must have equal d"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_names_argument_value_and_remedy(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call()
