"""Identities and inequalities that hold for all states, on states that hypothesis chooses."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ketwork.quantum import (
    Density,
    bures_angle,
    bures_distance,
    entropy,
    fidelity,
    jensen_shannon,
    mutual_information,
    negativity,
    overlap,
    purity,
    random_density,
    random_ket,
    random_unitary,
    relative_entropy,
    root_fidelity,
    shannon_entropy,
    trace_distance,
)

TINY = 1e-7
common = settings(max_examples=settings.default.max_examples * 2 // 5)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 4)
dtypes = st.sampled_from([torch.float64, torch.complex128])


def states(m: int, n: int, ranks: tuple[int, ...], seed: int, dtype: torch.dtype) -> list[Density]:
    g = torch.Generator().manual_seed(seed)
    return [random_density(m * n, r, dims=(m, n), dtype=dtype, seed=g) for r in ranks]


def turned(rho: Density, u: torch.Tensor) -> Density:
    """U ρ U† of either form."""
    if rho.factored:
        return Density.from_factor(rho.data @ u.mH, rho.dims)
    return Density.from_matrix(u @ rho.data @ u.mH, rho.dims)


@common
@given(sizes, sizes, seeds, dtypes)
def test_both_sides_of_a_ket_have_one_entropy(m: int, n: int, seed: int, dtype: torch.dtype) -> None:
    ket = random_ket(m * n * 2, dims=(m, n, 2), dtype=dtype, seed=torch.Generator().manual_seed(seed))
    for part, rest in (((0,), (1, 2)), ((1,), (0, 2)), ((0, 1), (2,))):
        s = ket.entanglement_entropy(part)
        torch.testing.assert_close(s, ket.entanglement_entropy(rest))
        torch.testing.assert_close(s, shannon_entropy(ket.schmidt(part).square()))
        torch.testing.assert_close(mutual_information(ket, part), 2 * s)
        torch.testing.assert_close(negativity(ket, part), negativity(ket.density(), rest), atol=TINY, rtol=0)


@common
@given(sizes, sizes, sizes, seeds, dtypes)
def test_entropy(m: int, n: int, r: int, seed: int, dtype: torch.dtype) -> None:
    """0 ≤ S ≤ log min(r, d); unitary invariance; subadditivity and Araki–Lieb; additivity of products."""
    (rho,) = states(m, n, (r,), seed, dtype)
    s = entropy(rho)
    assert -1e-12 <= s <= math.log2(min(r, m * n)) + 1e-12
    assert 1 / min(r, m * n) - 1e-12 <= purity(rho) <= 1 + 1e-12
    assert rho.participation_ratio() <= rho.effective_rank() + 1e-9
    u = random_unitary(m * n, dtype=dtype, seed=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(entropy(turned(rho, u)), s, atol=1e-10, rtol=0)
    a, b = rho.reduced([0]).entropy(), rho.reduced([1]).entropy()
    assert (a - b).abs() - 1e-10 <= s <= a + b + 1e-10
    torch.testing.assert_close(entropy(rho.tensor(rho.reduced(1))), s + a, atol=1e-10, rtol=0)
    assert -1e-10 <= rho.coherence() <= math.log2(m * n) + 1e-10


@common
@given(sizes, sizes, sizes, sizes, seeds, dtypes)
def test_pairs(m: int, n: int, r: int, t: int, seed: int, dtype: torch.dtype) -> None:
    """Symmetry, unitary invariance, Fuchs–van de Graaf, bounds, and equality of all representations."""
    rho, sigma = states(m, n, (r, t), seed, dtype)
    f, d, js = root_fidelity(rho, sigma), trace_distance(rho, sigma), jensen_shannon(rho, sigma)
    assert 1 - f - TINY <= d <= (1 - f.square()).clamp(min=0).sqrt() + 1e-6
    assert -TINY <= f <= 1 + TINY
    assert -1e-10 <= js <= 1 + 1e-10
    assert overlap(rho, sigma) <= fidelity(rho, sigma) + TINY
    assert bures_distance(rho, sigma) <= bures_angle(rho, sigma) + TINY
    u = random_unitary(m * n, dtype=dtype, seed=torch.Generator().manual_seed(seed))
    for measure, value in ((root_fidelity, f), (trace_distance, d), (jensen_shannon, js)):
        torch.testing.assert_close(measure(sigma, rho), value, atol=TINY, rtol=0)
        torch.testing.assert_close(measure(turned(rho, u), turned(sigma, u)), value, atol=TINY, rtol=0)
        dense = Density.from_matrix(sigma.matrix(), sigma.dims)
        torch.testing.assert_close(measure(rho, dense), value, atol=TINY, rtol=0)


@common
@given(sizes, sizes, sizes, sizes, seeds, dtypes)
def test_channels_bring_states_together(
    m: int, n: int, r: int, t: int, seed: int, dtype: torch.dtype
) -> None:
    """The partial trace, a channel, raises fidelity and lowers each distance."""
    rho, sigma = states(m, n, (r, t), seed, dtype)
    a, b = rho.reduced([1]), sigma.reduced([1])
    assert fidelity(a, b) >= fidelity(rho, sigma) - TINY
    assert trace_distance(a, b) <= trace_distance(rho, sigma) + 1e-10
    assert jensen_shannon(a, b) <= jensen_shannon(rho, sigma) + 1e-10
    mixed = sigma.mix(Density.maximally_mixed(m * n, (m, n), dtype=dtype), 0.1)
    divergence = relative_entropy(rho, mixed)
    assert relative_entropy(a, mixed.reduced([1])) <= divergence + 1e-9
    assert divergence >= 2 * trace_distance(rho, mixed).square() / math.log(2) - 1e-9  # Pinsker
    torch.testing.assert_close(relative_entropy(rho, rho.reduced([0]).tensor(a)), mutual_information(rho, 1))


@common
@given(sizes, seeds, dtypes)
def test_angles_obey_the_triangle(r: int, seed: int, dtype: torch.dtype) -> None:
    a, b, c = states(2, 4, (r, 3, 8), seed, dtype)
    for measure in (bures_angle, bures_distance, trace_distance, lambda x, y: jensen_shannon(x, y).sqrt()):
        assert measure(a, c) <= measure(a, b) + measure(b, c) + TINY
