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


def product(sites: int, field: float) -> waves.Wave:
    """A product state whose sites are up with probability 1/(1 + e^−4b)."""
    wave = waves.Wave(waves.RBM(alpha=1), waves.spins(sites))
    wave.set_vector(torch.cat([torch.full((sites,), field), torch.zeros(wave.count - sites)]))
    return wave


def test_chains_that_never_moved_have_no_error() -> None:
    wave, operator = product(6, 40.0), waves.ising(waves.chain(6), 0.4)
    for count in (16, 160):
        samples = waves.Metropolis(chains=16).sample(wave, count, seed=0)
        assert samples.frozen
        with pytest.warns(RuntimeWarning, match=r"chains never moved, so that .*Use `Tempering\(\)`"):
            energy = waves.expect(operator, wave, samples)
        assert energy.value == pytest.approx(-6.0)
        assert math.isnan(energy.stderr)
        assert math.isnan(energy.variance)
        assert "±" not in str(energy)
        assert "the chains never moved" in str(energy)
        with pytest.warns(RuntimeWarning, match="never moved"):
            found = waves.magnetizations(samples)
        assert bool(found.stderr.isnan().all())
        assert "errors unknown" in str(found)
        with pytest.warns(RuntimeWarning, match="never moved"):
            found = waves.renyi2(wave, [0, 1], samples)
        assert str(found) == "0 (error unknown)"


def test_chains_that_move_and_full_sums_are_not_frozen() -> None:
    wave = product(6, 0.3)
    assert not sampled(wave).frozen
    assert not full(product(6, 40.0)).frozen
    still = waves.Samples(torch.ones(4, 9, 6))
    assert still.frozen
    still.configurations[3, 8, 5] = -1
    assert not still.frozen
    assert not waves.Samples(torch.ones(40, 1, 6)).frozen  # independent draws


def test_two_replicas_come_from_different_chains(ising) -> None:
    """Pieces of one chain may agree in sign, and would give too little entropy."""
    exact = float(waves.renyi2(ising, [0, 1, 2], full(ising)).value)
    found = [
        waves.renyi2(ising, [0, 1, 2], waves.Metropolis(chains=4).sample(ising, 2000, seed=seed))
        for seed in range(40)
    ]
    known = [each for each in found if not math.isnan(float(each.stderr))]
    assert len(known) >= 20
    inside = [abs(float(each.value) - exact) <= 1.96 * float(each.stderr) for each in known]
    assert sum(inside) >= 0.9 * len(known)


def test_few_chains_that_hardly_turn_over_have_no_error_of_the_swap(ising) -> None:
    """Two of either sign: whichever is left out, one pair of three agrees, as if the entropy were known for certain."""
    x = torch.ones(4, 40, 8)
    x[:2] = -1
    x[0, 0, 0] = 1
    assert math.isnan(float(waves.renyi2(ising, [0, 1, 2], waves.Samples(x)).stderr))


def test_a_site_that_showed_one_value_has_an_error() -> None:
    """A site that is down once in 2,000 is mostly seen up alone; its mean is 0.999, and not 1 ± 0."""
    wave = waves.Wave(waves.RBM(alpha=1), waves.spins(4))
    bias = math.log(2000.0) / 4
    wave.set_vector(torch.cat([torch.tensor([bias, 0.1, 0.0, -0.1]), torch.zeros(wave.count - 4)]))
    exact = (wave.amplitudes().square() @ wave.space.states().double())[0]
    assert float(exact) == pytest.approx(0.999, abs=1e-4)
    inside, alone = 0, 0
    for seed in range(40):
        samples = sampled(wave, seed, 1024)
        alone += bool((samples.configurations[..., 0] == 1).all())
        found = waves.magnetizations(samples)
        inside += bool((found.value[0] - exact).abs() <= 1.96 * found.stderr[0])
        correlated = waves.correlations(samples)
        assert correlated.stderr.diagonal().max() == 0  # x² is 1 for certain
        assert float(correlated.stderr[0, 1]) > 0
    assert alone > 10
    assert inside >= 36


@pytest.mark.parametrize(("chains", "length"), [(16, 63), (4, 252)])
def test_errors_cover_where_chains_seldom_turn_over(chains: int, length: int) -> None:
    """x = ±1 that turns once in 100 steps, as the magnet's sign in an ordered state: halves of chains agree."""
    inside, cut = [], []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        turns = rng.random((chains, length)) < 0.01
        turns[:, 0] = rng.random(chains) < 0.5
        x = torch.from_numpy(1.0 - 2 * (turns.cumsum(1) % 2))[..., None]
        found = averaged(x, waves.Samples(x))
        inside.append(abs(float(found.value)) <= 1.96 * float(found.stderr))
        halves = x.unflatten(1, (-1, length // 9)).mean(2).flatten(0, 1)
        cut.append(abs(float(found.value)) <= 1.96 * float(halves.std()) / len(halves) ** 0.5)
    assert 0.92 <= np.mean(inside) <= 0.99
    assert np.mean(cut) < 0.8  # what batches give that are taken as independent
