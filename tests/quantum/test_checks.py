"""Arguments of the quantum package: lists and arrays take the precision of what they stand beside, and a refused
number is printed with how far it is off and how far it may be."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch

import ketwork as kw
from ketwork.quantum import Density, Ensemble, Ket, Measurement, holevo, random_density, random_ket

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
GIVEN = {
    "list": lambda p: list(p),
    "tuple": tuple,
    "array": np.array,
    "array of 32 bits": lambda p: np.array(p, dtype=np.float32),
    "tensor": lambda p: torch.tensor(p, dtype=torch.float64),
    "tensor of 32 bits": lambda p: torch.tensor(p, dtype=torch.float32),
}
given = pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def real(dtype: torch.dtype) -> torch.dtype:
    return torch.empty((), dtype=dtype).real.dtype


# Lists and arrays beside states
def test_holevo_of_listed_probabilities_and_states_of_64_bits() -> None:
    a = random_density(4, 4, dtype=torch.float64, seed=1)
    b = random_density(4, 2, dtype=torch.float64, seed=2)
    wanted = (0.3 * a.matrix() + 0.7 * b.matrix()).double()
    entropies = [Density.from_matrix(m).entropy() for m in (wanted, a.matrix(), b.matrix())]
    chi = kw.holevo(kw.Ensemble([0.3, 0.7], [a, b]))
    assert chi.dtype == torch.float64
    assert chi.item() == pytest.approx(
        (entropies[0] - 0.3 * entropies[1] - 0.7 * entropies[2]).item(), abs=1e-12
    )


@given
@dtypes
@pytest.mark.parametrize("kind", ["kets", "factors", "matrices"])
def test_probabilities_of_an_ensemble(kind: str, dtype: torch.dtype, given: Any) -> None:
    """0.1 is no number of 32 bits: its rounding must not be seen as a trace that is not 1."""
    states: Any = random_ket(6, (3,), dtype=dtype, seed=1)
    if kind != "kets":
        states = random_density(6, 2 if kind == "factors" else 6, (3,), dtype=dtype, seed=1)
    p = [0.1, 0.3, 0.6]
    ensemble = Ensemble(given(p), states)
    assert torch.finfo(ensemble.probabilities.dtype).bits >= torch.finfo(dtype).bits
    exact = Ensemble(torch.tensor(p, dtype=torch.float64), states)
    assert holevo(ensemble).item() == pytest.approx(holevo(exact).item(), abs=1e-6)
    measured = Measurement.pretty_good(ensemble)
    assert measured.success(ensemble).item() == pytest.approx(measured.success(exact).item(), abs=1e-6)
    assert measured.information(ensemble).item() <= holevo(ensemble).item() + 1e-6


@pytest.mark.parametrize("rank", [2, 6])
def test_probabilities_of_more_bits_than_their_states(rank: int) -> None:
    """Whose rounding is that of the states, more than 64 bits would allow."""
    p = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    for seed in range(20):
        states = random_density(6, rank, (3,), dtype=torch.complex64, seed=seed)
        average = Ensemble(p, states).average()
        assert average.dtype == torch.complex128
        assert average.matrix().diagonal().real.sum().item() == pytest.approx(1, abs=2e-7)
        wide = Density.from_matrix(states.matrix().to(torch.complex128), normalize=True, positive=True)
        assert holevo(Ensemble(p, states)).item() == pytest.approx(holevo(Ensemble(p, wide)).item(), abs=2e-6)


@given
@dtypes
def test_weights_of_a_mixture(dtype: torch.dtype, given: Any) -> None:
    kets = random_ket(6, (3,), dtype=dtype, seed=1)
    mixed = Density.from_kets(kets, given([0.1, 0.3, 0.6]))
    exact = Density.from_kets(kets, torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64))
    assert torch.finfo(mixed.dtype).bits >= torch.finfo(dtype).bits
    assert mixed.entropy().item() == pytest.approx(exact.entropy().item(), abs=1e-6)


def test_lists_take_the_dtype_of_their_companion_and_keep_its_digits() -> None:
    kets = random_ket(6, (3,), dtype=torch.complex128, seed=1)
    for p in ([0.1, 0.3, 0.6], np.array([0.1, 0.3, 0.6])):
        assert Ensemble(p, kets).probabilities.dtype == torch.float64
        assert Ensemble(p, kets).probabilities.tolist() == [0.1, 0.3, 0.6]
        assert Ensemble(p, kets.to(torch.complex64)).probabilities.dtype == torch.float32
    assert Ensemble([0, 1, 0], kets).probabilities.tolist() == [0, 1, 0]


@dtypes
@pytest.mark.parametrize("form", ["nested list", "array"])
def test_bases_and_observables(dtype: torch.dtype, form: str) -> None:
    """The Hadamard basis, whose 1/√2 needs all digits, as a list or an array beside states of any dtype."""
    root = 1 / math.sqrt(2)
    rows = [[root, root], [root, -root]]
    basis: Any = rows if form == "nested list" else np.array(rows)
    ket = Ket.basis(0, 2, dtype=dtype)
    for state in (ket, ket.density(), Density.from_matrix(ket.density().matrix())):
        assert state.probabilities(basis).tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
        assert state.probabilities(basis).dtype == real(dtype)
        assert set(state.measure(20, basis=basis, seed=0).tolist()) == {0, 1}
        assert kw.coherence(state, basis).item() == pytest.approx(1, abs=1e-6)
        assert state.expect(basis).item() == pytest.approx(root, abs=1e-6)


def test_real_and_complex_companions_meet() -> None:
    ket = Ket.basis(0, 2, dtype=torch.float64)
    assert ket.expect([[0, -1j], [1j, 0]]).item() == 0
    y = np.array([[1, 1], [1j, -1j]]) / math.sqrt(2)
    assert ket.probabilities(y).tolist() == pytest.approx([0.5, 0.5])
    assert ket.probabilities(y).dtype == torch.float64


@pytest.mark.parametrize("weight", [0.25, np.float64(0.25), torch.tensor(0.25), [0.25], np.array([0.25])])
def test_weights_of_mixing(weight: Any) -> None:
    rho, sigma = random_density(3, 3, (1,), seed=1), random_density(3, 3, (1,), seed=2)
    torch.testing.assert_close(
        rho.mix(sigma, weight).matrix(), 0.75 * rho.matrix() + 0.25 * sigma.matrix(), rtol=0, atol=1e-15
    )


# How far off, and how far is allowed
OFF = 0.01
REFUSED = {
    "norm": (lambda t: Ket(torch.tensor([1 + OFF, 0], dtype=t)), OFF),
    "trace of a factor": (lambda t: Density.from_factor(torch.eye(3, dtype=t)[:1] * (1 + OFF)), 2 * OFF),
    "trace of a matrix": (lambda t: Density.from_matrix(torch.eye(2, dtype=t) / 2 * (1 + OFF)), OFF),
    "weights": (
        lambda t: Density.from_kets(torch.eye(2, dtype=t), torch.tensor([0.5, 0.5 + OFF], dtype=t)),
        OFF,
    ),
    "probabilities": (
        lambda t: Ensemble(torch.tensor([0.5, 0.5 - OFF], dtype=t), Ket(torch.eye(2, dtype=t))),
        OFF,
    ),
}


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, "0.00035"), (torch.float64, "1.5e-08")])
@pytest.mark.parametrize(("call", "off"), REFUSED.values(), ids=REFUSED)
def test_a_refused_number_is_printed_with_deviation_and_tolerance(
    call: Any, off: float, dtype: torch.dtype, allowed: str
) -> None:
    with pytest.raises(ValueError, match=r"must have .* 1, but has") as caught:
        call(dtype)
    found = re.search(r"off by ([\d.e-]+) where ([\d.e-]+) is allowed", str(caught.value))
    assert found, caught.value
    assert float(found[1]) == pytest.approx(off, rel=0.05)
    assert found[2] == allowed


def test_a_deviation_too_small_for_the_number_itself_is_seen() -> None:
    """A trace of 1 + 3e−8 prints as 1: without its deviation the message would contradict itself."""
    with pytest.raises(ValueError, match=r"has trace 1, off by 3e-08 where 1.5e-08 is allowed"):
        Density.from_matrix(torch.eye(2, dtype=torch.float64) * (0.5 + 1.5e-8))


MATRICES = {
    "not Hermitian": (lambda t: Density.from_matrix(torch.tensor([[0.5, OFF], [0, 0.5]], dtype=t)), OFF, 0.5),
    "an observable": (lambda t: Ket.basis(0, 2).expect(torch.tensor([[2, OFF], [0, 2]], dtype=t)), OFF, 2),
    "no basis": (lambda t: Measurement.projective((1 + OFF) * torch.eye(2, dtype=t)), 2 * OFF, 1),
    "effects": (lambda t: Measurement.from_effects((1 - OFF) * torch.eye(2, dtype=t)[None]), OFF, 1),
    "a negative effect": (
        lambda t: Measurement.from_effects(
            torch.diag_embed(torch.tensor([[1 + OFF, 1], [-OFF, 0]], dtype=t))
        ),
        OFF,
        1,
    ),
    "a negative eigenvalue": (
        lambda t: Density.from_matrix(torch.diag(torch.tensor([1 + OFF, -OFF], dtype=t))),
        OFF,
        1,
    ),
}


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 3.45e-4), (torch.float64, 1.49e-8)])
@pytest.mark.parametrize(("call", "off", "scale"), MATRICES.values(), ids=MATRICES)
def test_a_refused_matrix_is_printed_with_deviation_and_tolerance(
    call: Any, off: float, scale: float, dtype: torch.dtype, allowed: float
) -> None:
    with pytest.raises(ValueError, match=r"must (be Hermitian|have|sum to)") as caught:
        call(dtype)
    found = re.search(r"off by ([\d.e-]+) where ([\d.e-]+) is allowed", str(caught.value))
    assert found, caught.value
    assert float(found[1]) == pytest.approx(off, rel=0.05)
    assert float(found[2]) == pytest.approx(allowed * scale, rel=0.05)


def test_what_is_hardly_refused_differs_from_what_is_allowed_as_it_is_printed() -> None:
    tol = math.sqrt(torch.finfo(torch.float64).eps)
    skew = torch.tensor([[0.5, 0.5 * tol * 1.0001], [0, 0.5]], dtype=torch.float64)
    with pytest.raises(ValueError, match="must be Hermitian") as caught:
        Density.from_matrix(skew)
    found = re.search(r"off by ([\d.e-]+) where ([\d.e-]+) is allowed", str(caught.value))
    assert found
    assert float(found[1]) > float(found[2])


def test_the_matrix_of_a_batch_that_is_off_is_the_one_printed() -> None:
    """Each matrix has a tolerance of its own, by its largest entry: a large matrix is off by more, and allowed."""
    large, small = 1e6 * torch.eye(2), torch.eye(2)
    large[0, 1], small[0, 1] = 100.0, 0.01
    with pytest.raises(ValueError, match=r"off by 0.01 where 0.00035 is allowed"):
        Density.from_matrix(torch.stack([large, small]), normalize=True)


def test_a_negative_probability_is_printed() -> None:
    with pytest.raises(ValueError, match=r"must be non-negative, but has -1e-09 where 0 is the least"):
        Ensemble(torch.tensor([1 + 1e-9, -1e-9], dtype=torch.float64), Ket(torch.eye(2)))
    with pytest.raises(ValueError, match=r"must be real, but is torch.complex64"):
        Ensemble(torch.tensor([1, 0j]), Ket(torch.eye(2)))
