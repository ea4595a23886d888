"""Derivatives against central differences, real and complex, at generic, degenerate and rank-deficient states."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ketwork.quantum import (
    Density,
    Ensemble,
    Ket,
    Measurement,
    State,
    bures_angle,
    coherence,
    entropy,
    fidelity,
    jensen_shannon,
    mutual_information,
    negativity,
    overlap,
    purity,
    random_density,
    random_unitary,
    relative_entropy,
    root_fidelity,
    trace_distance,
)

D = 6
DTYPES = [torch.float64, torch.complex128]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generic(dtype: torch.dtype) -> Tensor:
    return random_density(D, 2, dtype=dtype, seed=seeded(1)).data


def degenerate(dtype: torch.dtype) -> Tensor:
    return random_unitary(D, dtype=dtype, seed=seeded(2))[:2]


def deficient(dtype: torch.dtype) -> Tensor:
    a = random_unitary(D, dtype=dtype, seed=seeded(3))[:2]
    return torch.cat([a, a[:1]])  # three rows, rank two


def full(dtype: torch.dtype) -> Tensor:
    return torch.eye(D, dtype=dtype)


FACTORS = [generic, degenerate, deficient, full]


def as_factor(a: Tensor) -> Density:
    return Density.from_factor(a, (2, 3), normalize=True)


def as_matrix(a: Tensor) -> Density:
    return Density.from_matrix(a.mH @ a, (2, 3), normalize=True)


def check(f: Callable[..., Tensor], *inputs: Tensor, may_be_flat: bool = False) -> None:
    """Right by central differences, and not right by being zero everywhere."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(f, leaves, eps=1e-6, atol=2e-6, rtol=1e-5)
    moves = any(g.abs().max() > 1e-3 for g in torch.autograd.grad(f(*leaves).sum(), leaves))
    assert moves or may_be_flat


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [as_factor, as_matrix])
@pytest.mark.parametrize("a", FACTORS)
@pytest.mark.parametrize(
    "measure",
    [
        entropy,
        purity,
        coherence,
        lambda s: s.probabilities(),
        lambda s: s.reduced(1).entropy(),
        lambda s: mutual_information(s, 1),
    ],
    ids=["entropy", "purity", "coherence", "probabilities", "reduced", "information"],
)
def test_one_state(
    measure: Callable[[State], Tensor],
    a: Callable[[torch.dtype], Tensor],
    form: Callable[[Tensor], State],
    dtype: torch.dtype,
) -> None:
    # Entropy and purity are stationary at equal eigenvalues.
    check(lambda x: measure(form(x)), a(dtype), may_be_flat=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("forms", [(as_factor, as_factor), (as_factor, as_matrix), (as_matrix, as_matrix)])
@pytest.mark.parametrize("a", [generic, degenerate, deficient])
@pytest.mark.parametrize(
    "measure", [overlap, fidelity, root_fidelity, bures_angle, trace_distance, jensen_shannon]
)
def test_two_states(
    measure: Callable[[State, State], Tensor],
    a: Callable[[torch.dtype], Tensor],
    forms: tuple[Callable[[Tensor], State], Callable[[Tensor], State]],
    dtype: torch.dtype,
) -> None:
    b = random_density(D, 2, dtype=dtype, seed=seeded(4)).data

    def f(x: Tensor, y: Tensor) -> Tensor:
        return measure(forms[0](x), forms[1](y))

    check(f, a(dtype), b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [as_factor, as_matrix])
@pytest.mark.parametrize("b", FACTORS)
def test_relative_entropy(
    b: Callable[[torch.dtype], Tensor], form: Callable[[Tensor], State], dtype: torch.dtype
) -> None:
    """The support of ρ stays inside that of σ along the way: its factor is built from σ's rows."""
    y = b(dtype)
    inner = torch.randn(2, len(y), dtype=dtype, generator=seeded(5))

    def f(c: Tensor, y: Tensor) -> Tensor:
        return relative_entropy(form(c @ y), form(y))

    check(f, inner, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kets(dtype: torch.dtype) -> None:
    x, y = torch.randn(2, D, dtype=dtype, generator=seeded(6))
    rho = random_density(D, 3, dtype=dtype, seed=seeded(7))
    for measure in (overlap, fidelity, root_fidelity, trace_distance, jensen_shannon):

        def both(x: Tensor, y: Tensor, measure: Callable[..., Tensor] = measure) -> Tensor:
            return measure(Ket.normalized(x), Ket.normalized(y))

        def mixed(x: Tensor, measure: Callable[..., Tensor] = measure) -> Tensor:
            return measure(Ket.normalized(x), rho)

        check(both, x, y)
        check(mixed, x)
    for one in (
        coherence,
        lambda s: s.entanglement_entropy(1),
        lambda s: negativity(s, 1),
        lambda s: s.expect(torch.diag(torch.arange(6.0, dtype=torch.float64))),
    ):
        check(lambda x, one=one: one(Ket.normalized(x, (2, 3))), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ensemble_and_measurement(dtype: torch.dtype) -> None:
    x = torch.randn(3, D, dtype=dtype, generator=seeded(8))
    p = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    fixed = Measurement.pretty_good(Ensemble(p, Ket.normalized(x)))
    for measure in (Ensemble.holevo, fixed.success, fixed.information):

        def f(w: Tensor, x: Tensor, measure: Callable[..., Tensor] = measure) -> Tensor:
            return measure(Ensemble(w.softmax(0), Ket.normalized(x)))

        check(f, p.log(), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [as_factor, as_matrix])
def test_finite_where_not_differentiable(form: Callable[[Tensor], State], dtype: torch.dtype) -> None:
    """At ρ = σ, at orthogonal states and at a pure state: one-sided kinks, yet no NaN or infinity."""
    u = random_unitary(D, dtype=dtype, seed=seeded(9))
    pairs = [(u[:2], u[:2]), (u[:2], u[2:4]), (u[:1], u[:1]), (u[:1], u[1:2]), (u, u)]
    measures = (
        fidelity,
        root_fidelity,
        bures_angle,
        trace_distance,
        jensen_shannon,
        overlap,
        relative_entropy,
    )
    for a, b in pairs:
        for measure in measures:
            x, y = a.clone().requires_grad_(), b.clone().requires_grad_()
            value = measure(form(x), form(y))
            if value.isfinite():
                gradients = torch.autograd.grad(value, (x, y), allow_unused=True)
                assert all(g is None or g.isfinite().all() for g in gradients), measure.__name__


def test_float32_gradients_keep_their_dtype() -> None:
    x = random_density(64, 8, dtype=torch.float32, seed=seeded(1)).data.requires_grad_()
    y = x.detach().double().requires_grad_()
    Density.from_factor(x).entropy().backward()
    Density.from_factor(y, normalize=True).entropy().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.dtype == torch.float32
    tangent = x.grad - (x.grad * x.detach()).sum() * x.detach()  # the second one normalises
    torch.testing.assert_close(tangent.double(), y.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_trace_distance_does_not_push_where_states_agree(dtype: torch.dtype) -> None:
    """ρ = (P₀ + P₁)/2 and σ = (P₀ + P₂)/2: the derivative is the sign of ρ − σ, 0 on the shared P₀."""
    u = random_unitary(D, dtype=dtype, seed=seeded(10)) / 2**0.5
    a = u[[0, 1]].clone().requires_grad_()
    trace_distance(Density.from_factor(a), Density.from_factor(u[[0, 2]])).backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad, torch.stack([0 * u[0], u[1]]))
