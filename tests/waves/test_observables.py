"""Sampled measurements against the exact ket, and the ket against the quantum room."""

import math

import numpy as np
import pytest
import torch

from ketwork import waves
from ketwork.waves.observables import averaged


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(operator: waves.Operator, alpha: int = 2) -> waves.Wave:
    wave = waves.Wave(waves.RBM(alpha=alpha), operator.space)
    waves.ground_state(operator, wave, steps=80, n_samples=None)
    return wave


ISING = waves.ising(waves.chain(8), 1.0)
HEISENBERG = waves.heisenberg(waves.chain(8))


@pytest.fixture(scope="module")
def ising() -> waves.Wave:
    return trained(ISING)


@pytest.fixture(scope="module")
def heisenberg() -> waves.Wave:
    return trained(HEISENBERG)


def sampled(wave: waves.Wave, seed: int = 0, count: int = 8000) -> waves.Samples:
    return waves.Metropolis(chains=64).sample(wave, count, seed=seeded(seed))


def full(wave: waves.Wave) -> waves.Samples:
    return waves.FullSum().sample(wave, 1, seed=seeded())


def agree(found: waves.Measured, exact: torch.Tensor, sigmas: float = 5) -> None:
    assert (found.stderr > 0).any()
    assert ((found.value - exact).abs() <= sigmas * found.stderr + 1e-9).all()


def test_the_ket_is_the_ground_state_and_enters_the_quantum_room(ising) -> None:
    ket = ising.ket()
    exact = waves.exact.ground_state_vector(ISING)
    assert ket.dims == (2,) * 8
    assert float((ket.amplitudes @ exact) ** 2) > 1 - 1e-4
    density = ket.reduced(range(4))
    theirs = torch.linalg.svdvals(exact.reshape(16, 16)).square()
    entropy = float(-(theirs * torch.log2(theirs)).sum())
    assert float(density.entropy()) == pytest.approx(entropy, abs=2e-3)
    assert float(ket.entanglement_entropy(4)) == pytest.approx(float(density.entropy()), abs=1e-9)


def test_the_ket_of_a_fixed_magnetization_is_zero_elsewhere(heisenberg) -> None:
    amplitudes = heisenberg.ket().amplitudes
    assert amplitudes.shape == (256,)
    assert int((amplitudes != 0).sum()) == 70
    assert amplitudes[0] == 0
    torch.testing.assert_close(amplitudes[heisenberg.space.keys], heisenberg.amplitudes())


def test_a_ket_too_large_names_what_to_use() -> None:
    with pytest.raises(ValueError, match=r"at most 4194304 amplitudes.*waves.renyi2"):
        waves.Wave(waves.RBM(), waves.spins(30)).ket()


def test_expectation_values_of_other_operators(ising) -> None:
    field = waves.PauliSum(ISING.space, {f"X{i}": 1.0 for i in range(8)})
    psi = ising.amplitudes()
    exact = float(psi @ torch.from_numpy(field.to_sparse() @ psi.numpy()))
    found = waves.expect(field, ising, sampled(ising))
    assert abs(found.value - exact) < 5 * found.stderr
    assert waves.expect(field, ising, full(ising)).value == pytest.approx(exact, abs=1e-6)


def test_magnetizations_and_correlations(heisenberg) -> None:
    x, p = heisenberg.space.states().double(), heisenberg.amplitudes().square()
    exact = torch.einsum("b,bi,bj->ij", p, x, x)
    found = waves.correlations(sampled(heisenberg))
    assert (found.value - exact).abs().max() < 0.06
    agree(found, exact)
    torch.testing.assert_close(waves.correlations(full(heisenberg)).value, exact)
    agree(waves.magnetizations(sampled(heisenberg)), p @ x)
    # neighbours of the exact ground state: E/(3·bonds) by rotation symmetry
    assert float(exact[0, 1]) == pytest.approx(waves.exact.ground_energy(HEISENBERG) / 24, abs=5e-3)


def test_structure_factors(heisenberg) -> None:
    lattice = waves.chain(8)
    k = waves.momenta(lattice)
    assert k.shape == (8, 2)
    np.testing.assert_allclose(np.sort(k[:, 0].numpy()), 2 * math.pi * np.arange(8) / 8, atol=1e-12)
    c = waves.correlations(full(heisenberg)).value
    phase = torch.exp(1j * (k @ torch.from_numpy(lattice.positions).T))
    exact = torch.einsum("ki,ij,kj->k", phase, c.to(phase.dtype), phase.conj()).real / 8
    found = waves.structure_factor(full(heisenberg), lattice, k)
    torch.testing.assert_close(found.value, exact)
    assert float(found.value.mean()) == pytest.approx(1)  # the sum rule: ⟨x²⟩ = 1
    assert int(found.value.argmax()) == 4  # π
    agree(waves.structure_factor(sampled(heisenberg), lattice, k), exact)
    square = waves.square(4, 2)
    assert waves.momenta(square).shape == (8, 2)
    with pytest.raises(ValueError, match="no momenta of its own"):
        waves.momenta(waves.chain(4, periodic=False))


@pytest.mark.parametrize("region", [[0], [0, 1, 2, 3], [1, 4, 6]])
def test_renyi_entropy_by_the_swap(ising, heisenberg, region) -> None:
    for wave in (ising, heisenberg):
        exact = waves.renyi2(wave, region, full(wave))
        amplitudes = wave.ket().amplitudes.reshape((2,) * 8)
        rest = [i for i in range(8) if i not in region]
        matrix = amplitudes.permute(*region, *rest).reshape(2 ** len(region), -1)
        rho = matrix @ matrix.T
        assert float(exact.value) == pytest.approx(-math.log2(float((rho @ rho).trace())), abs=1e-9)
        agree(waves.renyi2(wave, region, sampled(wave)), exact.value)


def test_renyi_entropy_of_a_product_is_zero() -> None:
    wave = waves.Wave(waves.RBM(), waves.spins(6))
    wave.set_vector(torch.cat([torch.linspace(-0.3, 0.4, 6), torch.zeros(wave.count - 6)]))
    found = waves.renyi2(wave, [0, 1, 2], sampled(wave))
    assert float(found.value) == pytest.approx(0, abs=1e-5)
    assert str(found).count("±") == 1


def test_fidelity_of_two_waves(ising) -> None:
    other = waves.Wave(waves.RBM(alpha=2), ISING.space)
    other.set_vector(ising.vector() + 0.05 * torch.randn(ising.count, generator=seeded(3)))
    exact = waves.fidelity(ising, other, full(ising), full(other)).value
    assert 0.8 < float(exact) < 0.999
    assert float(exact) == pytest.approx(
        float((ising.ket().amplitudes @ other.ket().amplitudes) ** 2), abs=1e-9
    )
    agree(waves.fidelity(ising, other, sampled(ising), sampled(other, 1)), exact)
    same = waves.fidelity(ising, ising, sampled(ising), sampled(ising, 1))
    assert float(same.value) == pytest.approx(1, abs=1e-6)


def test_errors_of_correlated_samples_cover_their_spread() -> None:
    """Few chains and long correlations: the error must be that of the mean over many repetitions."""
    rho, means, errors = 0.8, [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = np.empty((4, 2000))
        x[:, 0] = rng.normal(size=4)
        for t in range(1, 2000):
            x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=4)
        found = averaged(torch.from_numpy(x), waves.Samples(torch.empty(4, 2000, 1)))
        means.append(float(found.value))
        errors.append(float(found.stderr))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.25)


def test_bad_regions_spaces_and_chains(ising) -> None:
    for region in ([], [0, 0], list(range(8)), [9]):
        with pytest.raises(ValueError, match="must be distinct sites among 0 … 7, not all"):
            waves.renyi2(ising, region, full(ising))
    with pytest.raises(ValueError, match="at least two chains"):
        waves.renyi2(ising, [0], waves.Metropolis(chains=1).sample(ising, 10, seed=seeded()))
    other = waves.Wave(waves.RBM(), waves.spins(6))
    with pytest.raises(ValueError, match="must be on the same space"):
        waves.fidelity(ising, other, full(ising), full(other))
