"""Closed forms that a correct quantum room reproduces; sources beside each."""

import math

import pytest
import torch
from torch import Tensor

from ketwork.quantum import (
    Density,
    Ensemble,
    Ket,
    Measurement,
    coherence,
    entropy,
    fidelity,
    jensen_shannon,
    mutual_information,
    negativity,
    participation_ratio,
    purity,
    random_density,
    random_ket,
    relative_entropy,
    trace_distance,
)

NATS = math.e


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=seeded(seed))


def harmonic(n: int) -> float:
    return sum(1 / k for k in range(1, n + 1))


def mean_and_error(x: Tensor) -> tuple[float, float]:
    return x.mean().item(), (x.std() / len(x) ** 0.5).item()


def close(x: Tensor, value: float) -> None:
    """Mean of samples within four standard errors."""
    mean, error = mean_and_error(x)
    assert abs(mean - value) < 4 * error, (mean, error, value)


# Spectra of random data
def test_square_gaussian_has_three_different_effective_ranks() -> None:
    n = 1000
    rho = Density.from_factor(gaussian(n, n, 0), normalize=True)
    singular = rho.spectrum().sqrt()
    p = singular / singular.sum()
    rankme = (-(p * p.log()).sum()).exp().item()
    assert rankme / n == pytest.approx(0.80504, abs=2e-3)
    assert rho.effective_rank().item() / n == pytest.approx(math.exp(-0.5), abs=2e-3)
    assert rho.participation_ratio().item() / n == pytest.approx(0.5, abs=2e-3)


@pytest.mark.parametrize("shape", [(2000, 500), (500, 2000)])
def test_marchenko_pastur(shape: tuple[int, int]) -> None:
    rho = Density.from_factor(gaussian(*shape, 1), normalize=True)
    assert rho.factored == (shape[0] < shape[1])
    assert entropy(rho, NATS).item() == pytest.approx(math.log(500) - 500 / 4000, abs=2e-3)
    assert participation_ratio(rho).item() == pytest.approx(400, rel=5e-3)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (2, 5), (3, 4), (4, 16)])
def test_page(m: int, n: int) -> None:
    """Page 1993, gr-qc/9305007; mean purity of complex and of real kets (Lubkin 1978 and its real analogue)."""
    kets = random_ket(m * n, (20_000,), dims=(m, n), seed=seeded(2))
    page = sum(1 / k for k in range(n + 1, m * n + 1)) - (m - 1) / (2 * n)
    close(kets.entanglement_entropy(1, NATS), page)
    close(kets.reduced([1]).purity(), (m + n) / (m * n + 1))
    real = random_ket(m * n, (20_000,), dims=(m, n), dtype=torch.float64, seed=seeded(3))
    close(real.reduced(1).purity(), (m + n + 1) / (m * n + 2))
    if (m, n) == (2, 2):
        close(real.entanglement_entropy(1, NATS), 0.277182)


def test_induced_measure_is_a_traced_out_ket() -> None:
    rho = random_density(3, 4, (20_000,), seed=seeded(4))
    close(purity(rho), (3 + 4) / (3 * 4 + 1))


def test_purity_bias() -> None:
    """E Tr ρ̂² = 1/N + (1 − 1/N) Tr ρ²: N = 256 in d = 64 gives 0.019470."""
    kets = random_ket(64, (400, 256), dtype=torch.float64, seed=seeded(5))
    sampled = Density.from_kets(kets).purity()
    close(sampled, 0.019470)
    close((256 * sampled - 1) / 255, 1 / 64)


@pytest.mark.parametrize(("d", "complex_", "real"), [(2, 0.5, 2 * math.log(2) - 1), (64, 3.74389, 3.44479)])
def test_coherence_of_random_kets(d: int, complex_: float, real: float) -> None:
    assert complex_ == pytest.approx(harmonic(d) - 1, abs=1e-5)
    close(coherence(random_ket(d, (20_000,), seed=seeded(6)), base=NATS), complex_)
    close(coherence(random_ket(d, (20_000,), dtype=torch.float64, seed=seeded(7)), base=NATS), real)


# The dictionary
def test_coherence_counts_neurons() -> None:
    for d in (2, 7, 64):
        assert coherence(Ket.basis(d - 1, d)).item() == 0
        flat = Ket.normalized(torch.ones(d, dtype=torch.float64))
        assert coherence(flat).item() == pytest.approx(math.log2(d), abs=1e-12)
        assert coherence(flat.density()).item() == pytest.approx(math.log2(d), abs=1e-12)


def test_two_neurons_lie_on_the_bloch_sphere() -> None:
    for dtype in (torch.float64, torch.complex128):
        r = random_ket(2, (100,), dtype=dtype, seed=seeded(8)).bloch()
        torch.testing.assert_close(r.square().sum(-1), torch.ones(100, dtype=torch.float64))
    half = 0.5**0.5
    i = torch.tensor([[1, 0], [0, 1], [half, half], [half, half * 1j]], dtype=torch.complex128)
    poles = torch.tensor([[0, 0, 1], [0, 0, -1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(Ket(i).bloch(), poles)
    rho = random_density(2, 2, (50,), seed=seeded(9))
    torch.testing.assert_close(rho.bloch().square().sum(-1), 2 * rho.purity() - 1)


def test_softmax_is_borns_rule() -> None:
    logits = gaussian(5, 10, 10)
    p = logits.softmax(-1)
    torch.testing.assert_close(Ket(p.sqrt()).probabilities(), p)


# Entanglement
@pytest.mark.parametrize("n", [2, 3, 5])
def test_ghz(n: int) -> None:
    x = torch.zeros(2**n, dtype=torch.float64)
    x[0] = x[-1] = 1
    ghz = Ket.normalized(x, (2,) * n)
    for cut in range(1, n):
        assert ghz.entanglement_entropy(cut, NATS).item() == pytest.approx(math.log(2), abs=1e-12)
        assert negativity(ghz, cut).item() == pytest.approx(0.5, abs=1e-12)
    assert negativity(ghz.density(), [n - 1]).item() == pytest.approx(0.5, abs=1e-12)
    assert mutual_information(ghz, [0]).item() == pytest.approx(2, abs=1e-12)
    if n > 2:
        assert mutual_information(ghz, [0], [1]).item() == pytest.approx(1, abs=1e-12)


def test_products_are_not_entangled() -> None:
    product = random_ket(3, seed=seeded(11)).tensor(random_ket(4, seed=seeded(12)))
    assert product.dims == (3, 4)
    assert product.entanglement_entropy(1).item() == pytest.approx(0, abs=1e-13)
    assert product.schmidt(1).tolist() == pytest.approx([1, 0, 0], abs=1e-12)
    assert negativity(product, 1).item() == pytest.approx(0, abs=1e-12)


def test_werner_state_negativity() -> None:
    """p|singlet⟩⟨singlet| + (1 − p)/4: negativity max(0, (3p − 1)/4)."""
    singlet = Ket.normalized(torch.tensor([0.0, 1, -1, 0], dtype=torch.float64), (2, 2))
    noise = Density.maximally_mixed(4, (2, 2), dtype=torch.float64)
    for p in (0.0, 0.3, 0.5, 1.0):
        assert negativity(noise.mix(singlet, p), 1).item() == pytest.approx(
            max(0, (3 * p - 1) / 4), abs=1e-12
        )


# Distances
def test_commuting_states_reduce_to_probabilities() -> None:
    p, q = gaussian(2, 6, 13).softmax(-1)
    rho, sigma = Density.from_matrix(torch.diag(p)), Density.from_matrix(torch.diag(q))
    assert fidelity(rho, sigma).item() == pytest.approx((p * q).sqrt().sum().square().item(), abs=1e-12)
    assert trace_distance(rho, sigma).item() == pytest.approx((p - q).abs().sum().item() / 2, abs=1e-12)
    kl = (p * (p / q).log()).sum().item()
    assert relative_entropy(rho, sigma, NATS).item() == pytest.approx(kl, abs=1e-12)


def test_close_kets_keep_their_digits() -> None:
    a = 1e-9
    zero = Ket.basis(0, 2, dtype=torch.float64)
    turned = Ket(torch.tensor([math.cos(a), math.sin(a)], dtype=torch.float64))
    assert trace_distance(zero, turned).item() == pytest.approx(a, rel=1e-6)


# Ensembles and measurements
def pair(c: float, p: float = 0.5) -> Ensemble:
    kets = Ket(torch.tensor([[1.0, 0], [c, math.sqrt(1 - c * c)]], dtype=torch.float64))
    return Ensemble(torch.tensor([p, 1 - p], dtype=torch.float64), kets)


def equiangular(k: int, c: float, extra: int = 0) -> Ensemble:
    gram = (1 - c) * torch.eye(k, dtype=torch.float64) + c
    kets = torch.nn.functional.pad(torch.linalg.cholesky(gram), (0, extra))
    return Ensemble(torch.full((k,), 1 / k, dtype=torch.float64), Ket(kets))


def test_two_states() -> None:
    c = 0.5**0.5
    h = -sum(x * math.log2(x) for x in ((1 + c) / 2, (1 - c) / 2))
    even = pair(c)
    assert h == pytest.approx(0.600876, abs=1e-6)
    assert even.holevo().item() == pytest.approx(h, abs=1e-12)
    assert jensen_shannon(even.states[0], even.states[1]).item() == pytest.approx(h, abs=1e-12)
    best = (1 + math.sqrt(1 - c * c)) / 2
    helstrom = Measurement.helstrom(even.states[0], even.states[1])
    assert Measurement.pretty_good(even).success(even).item() == pytest.approx(best, abs=1e-12)
    assert helstrom.success(even).item() == pytest.approx(best, abs=1e-12)


def test_uneven_priors_part_pretty_good_from_best() -> None:
    uneven = pair(0.5**0.5, 0.8)
    assert Measurement.pretty_good(uneven).success(uneven).item() == pytest.approx(0.897808, abs=1e-6)
    helstrom = Measurement.helstrom(uneven.states[0], uneven.states[1], 0.8)
    assert helstrom.success(uneven).item() == pytest.approx(0.912311, abs=1e-6)


def test_trine() -> None:
    angle = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    trine = Ensemble(torch.ones(3, dtype=torch.float64) / 3, Ket(torch.stack([angle.cos(), angle.sin()], -1)))
    measurement = Measurement.pretty_good(trine)
    assert trine.holevo().item() == pytest.approx(1, abs=1e-12)
    assert measurement.success(trine).item() == pytest.approx(2 / 3, abs=1e-12)
    assert measurement.information(trine).item() == pytest.approx(1 / 3, abs=1e-12)
    embedded = Ket(torch.nn.functional.pad(trine.states.amplitudes, (0, 1)))  # type: ignore[union-attr]
    assert Density.from_kets(embedded).entropy(NATS).item() == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("extra", [0, 3])
def test_equiangular_states(extra: int) -> None:
    k, c = 5, 0.3
    ensemble = equiangular(k, c, extra)
    success = ((math.sqrt(1 + (k - 1) * c) + (k - 1) * math.sqrt(1 - c)) / k) ** 2
    assert success == pytest.approx(0.933110, abs=1e-6)
    measurement = Measurement.pretty_good(ensemble)
    assert measurement.success(ensemble).item() == pytest.approx(success, abs=1e-12)
    assert ensemble.holevo().item() == pytest.approx(2.109588, abs=1e-6)
    torch.testing.assert_close(measurement.effects().sum(0), torch.eye(k + extra, dtype=torch.float64))
    outside = torch.zeros(k + extra, dtype=torch.float64)
    outside[-1] = 1
    if extra:
        p = measurement.probabilities(Ket(outside))
        torch.testing.assert_close(p, torch.full((k,), 1 / k, dtype=torch.float64))


@pytest.mark.parametrize("k", [2, 5, 10])
def test_collapse_onto_directions_and_onto_a_simplex(k: int) -> None:
    """K orthogonal directions hold log₂ K bits, a centred simplex of K directions log₂(K − 1)."""
    p = torch.full((k,), 1 / k, dtype=torch.float64)
    eye = torch.eye(k, dtype=torch.float64)
    assert Ensemble(p, Ket(eye)).holevo().item() == pytest.approx(math.log2(k), abs=1e-12)
    assert Ensemble(p, Ket.normalized(eye - 1 / k)).holevo().item() == pytest.approx(
        math.log2(k - 1), abs=1e-12
    )


# Truncation
def test_discarded_weight() -> None:
    rho = random_density(20, 12, dtype=torch.float64, seed=seeded(14))
    for k in (1, 5, 12, 15):
        _, kets = rho.eigenstates(k)
        v = kets.amplitudes.mT
        kept = torch.trace(v.mT @ rho.matrix() @ v)
        assert (1 - kept).item() == pytest.approx(1 - rho.spectrum()[:k].sum().item(), abs=1e-12)
