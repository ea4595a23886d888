"""Fermions: operators against OpenFermion, determinants against determinants, and what they reach."""

import math
from itertools import combinations

import numpy as np
import openfermion
import pytest
import torch

from ketwork import waves
from ketwork.waves.fermions import added, density_terms, hopping_terms

F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hops(lattice: waves.Lattice) -> np.ndarray:
    matrix = np.zeros((lattice.sites,) * 2)
    for i, j in lattice.bonds():
        matrix[i, j] = matrix[j, i] = -1.0
    return matrix


def test_hopping_and_densities_are_openfermions() -> None:
    terms = added(hopping_terms(3, 1, 0.3 + 0.4j), hopping_terms(0, 1, -1.0), density_terms(2.0, 0, 2))
    theirs = openfermion.FermionOperator("3^ 1", 0.3 + 0.4j) + openfermion.FermionOperator("1^ 3", 0.3 - 0.4j)
    theirs += openfermion.FermionOperator("0^ 1", -1.0) + openfermion.FermionOperator("1^ 0", -1.0)
    theirs += openfermion.FermionOperator("0^ 0 2^ 2", 2.0)
    expected = openfermion.get_sparse_operator(theirs, 4).toarray()
    found = waves.PauliSum(waves.qubits(4), terms).to_sparse().toarray()
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("periodic", [True, False])
def test_the_hubbard_model_is_openfermions(periodic) -> None:
    theirs = openfermion.fermi_hubbard(3, 1, 1.0, 4.0, periodic=periodic)
    expected = openfermion.get_sparse_operator(openfermion.jordan_wigner(theirs), 6).toarray()
    for up, down in ((2, 1), (1, 1), (3, 2)):
        H = waves.hubbard(waves.chain(3, periodic=periodic), 4.0, up=up, down=down)
        block = expected[np.ix_(H.space.keys, H.space.keys)]
        np.testing.assert_allclose(H.to_sparse().toarray(), block, atol=1e-12)


def test_spinless_fermions_on_a_ring_against_their_bands() -> None:
    for count in (2, 3):
        H = waves.spinless(waves.chain(6), 0.0, particles=count)
        bands = np.sort(-2 * np.cos(2 * math.pi * np.arange(6) / 6))  # an odd number of them: periodic
        if count % 2:
            assert waves.exact.ground_energy(H) == pytest.approx(bands[:count].sum())
        one = np.linalg.eigvalsh(hops(waves.chain(6)))[:count].sum()
        assert waves.exact.ground_energy(H) == pytest.approx(one)  # modes of a Slater determinant


def test_a_determinant_of_free_orbitals_is_the_ground_state_without_interaction() -> None:
    lattice = waves.square(3, 2, periodic=False)
    H = waves.hubbard(lattice, 0.0, up=2, down=1)
    orbitals = [waves.free_orbitals(hops(lattice), n) for n in (2, 1)]
    wave = waves.Wave(waves.Slater(orbitals=orbitals, std=0.0), H.space)
    energy = waves.expect(H, wave, waves.FullSum().sample(wave, 1))
    assert float(energy) == pytest.approx(
        waves.exact.ground_energy(H), abs=1e-4
    )  # the orbitals' perturbation is 1e−3
    assert energy.variance < 1e-4


def test_amplitudes_are_determinants_of_all_occupied_rows() -> None:
    """Two kinds in one matrix of blocks, its rows in the order of the sites: the signs between the kinds are in it."""
    space = waves.electrons(4, 2, 3)
    module = waves.Slater(jastrow=False, std=0.5)
    wave = waves.Wave(module, space, seed=3)
    up, down = (m.detach() for m in module.m)
    whole = torch.zeros(8, 5, dtype=F64)
    whole[0::2, :2], whole[1::2, 2:] = up, down
    x = space.states(F64)
    expected = torch.stack([torch.linalg.det(whole[row.bool()]) for row in x])
    log, sign = wave.log_and_sign(x)
    torch.testing.assert_close(sign * torch.exp(log), expected)
    torch.testing.assert_close(torch.exp(wave.log_amplitude(x)).real, expected)


def test_exchanging_the_orbitals_of_two_fermions_changes_the_sign_and_nothing_else() -> None:
    space = waves.qubits(5, ones=3)
    module = waves.Slater(std=0.4)
    wave = waves.Wave(module, space)
    x = space.states(F64)
    log, sign = wave.log_and_sign(x)
    with torch.no_grad():
        module.m[0].copy_(module.m[0][:, [1, 0, 2]])
    other, turned = wave.log_and_sign(x)
    torch.testing.assert_close(other, log)
    assert torch.equal(turned, -sign)


NETWORKS = {
    "slater": lambda: waves.Slater(std=0.4),
    "no jastrow": lambda: waves.Slater(std=0.4, jastrow=False),
    "backflow": lambda: waves.Backflow((6,), std=0.3),
    "deep": lambda: waves.Backflow((5, 4), determinants=3, std=0.3),
}


@pytest.mark.parametrize(
    "space", [waves.electrons(3, 2, 1), waves.qubits(5, ones=2), waves.electrons(3, 3, 0)]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_jacobian_is_that_of_central_differences(name, space) -> None:
    wave = waves.Wave(NETWORKS[name](), space, seed=2)
    x = space.random(7, seed=0, dtype=F64)
    found, start = wave.jacobian(x), wave.vector()
    assert not found.is_complex()
    for k in range(wave.count):
        step = torch.zeros_like(start)
        step[k] = 1e-6
        wave.set_vector(start + step)
        up = wave.log_and_sign(x)[0]
        wave.set_vector(start - step)
        numerical = (up - wave.log_and_sign(x)[0]) / 2e-6
        torch.testing.assert_close(found[:, k], numerical, atol=1e-5, rtol=1e-4)
        wave.set_vector(start)


def test_every_sum_of_determinants_is_that_sum() -> None:
    space = waves.electrons(3, 1, 2)
    module = waves.Backflow((4,), determinants=2, std=0.4, jastrow=False)
    wave = waves.Wave(module, space)
    x = space.states(F64)
    moved, _ = module._moved(x)
    total = torch.zeros(len(x), dtype=F64)
    for row, configuration in enumerate(x):
        for k in range(2):
            up = (module.m[0] + moved[0][row, k])[configuration[0::2].bool()]
            down = (module.m[1] + moved[1][row, k])[configuration[1::2].bool()]
            ups, downs = configuration[0::2].nonzero()[:, 0] * 2, configuration[1::2].nonzero()[:, 0] * 2 + 1
            crossed = sum(1 for i in downs for j in ups if i < j)
            total[row] += (-1) ** crossed * torch.linalg.det(up) * torch.linalg.det(down)
    log, sign = wave.log_and_sign(x)
    torch.testing.assert_close(sign * torch.exp(log), total.detach())


def test_a_molecule_starts_from_hartree_fock() -> None:
    made = waves.molecule("Li 0 0 0; H 0 0 1.5949")
    wave = waves.Wave(waves.Slater(std=1e-6), made.operator.space)
    energy = waves.expect(made.operator, wave, waves.FullSum().sample(wave, 1))
    assert float(energy) == pytest.approx(made.hartree_fock, abs=1e-8)


@pytest.mark.parametrize(
    ("atoms", "within"),
    [
        ("H 0 0 0; H 0 0 0.7414", 1e-6),
        ("Li 0 0 0; H 0 0 1.5949", 4e-4),
        ("H 0 0 0; H 0 0 1; H 0 0 2; H 0 0 3", 4e-4),
    ],
    ids=["H2", "LiH", "H4"],
)
def test_backflow_reaches_fci(atoms, within) -> None:
    H = waves.molecule(atoms).operator
    run = waves.ground_state(H, waves.Wave(waves.Backflow((32,)), H.space), steps=80, n_samples=150)
    assert abs(float(run.energy) - waves.exact.ground_energy(H)) < within


def test_backflow_reaches_half_a_percent_on_lattices() -> None:
    lattice = waves.square(3, 2, periodic=False)
    H = waves.hubbard(lattice, 8.0)
    orbitals = [waves.free_orbitals(hops(lattice), 3)] * 2
    wave = waves.Wave(waves.Backflow((24,), orbitals=orbitals), H.space)
    run = waves.ground_state(H, wave, steps=200, n_samples=200)
    assert float(run.energy) == pytest.approx(waves.exact.ground_energy(H), rel=5e-3)


def test_by_chains_where_the_space_is_not_listed() -> None:
    """A molecule by Metropolis: chains stay at few determinants, which are completed."""
    H = waves.molecule("H 0 0 0; H 0 0 1; H 0 0 2; H 0 0 3").operator
    wave = waves.Wave(waves.Backflow((16,)), H.space)
    run = waves.ground_state(H, wave, steps=40, n_samples=192, sampler=waves.Metropolis(chains=32), final=2)
    assert abs(float(run.energy) - waves.exact.ground_energy(H)) < 1.6e-3
    assert any("few distinct configurations" in note for note in run.notes)


def test_configurations_are_those_of_the_numbers_of_fermions() -> None:
    space = waves.electrons(4, 2, 1)
    assert space.size == math.comb(4, 2) * 4
    wanted = {(a, b, c) for a, b in combinations(range(4), 2) for c in range(4)}
    ups = space.states()[:, 0::2]
    downs = space.states()[:, 1::2]
    found = {
        (*u.nonzero()[:, 0].tolist(), *d.nonzero()[:, 0].tolist()) for u, d in zip(ups, downs, strict=True)
    }
    assert found == wanted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: waves.Wave(waves.Slater(), waves.qubits(4)), "a fixed number of fermions on all sites"),
        (lambda: waves.Wave(waves.Slater(), waves.spin_one(4, magnetization=0)), "needs two levels a site"),
        (
            lambda: waves.Wave(waves.Slater(orbitals=[np.eye(3)]), waves.electrons(3, 1, 1)),
            "each of 2 kinds, but has 1",
        ),
        (
            lambda: waves.Wave(waves.Slater(orbitals=[np.eye(4)]), waves.qubits(4, ones=2)),
            r"must have matrices \(4, 2\) here, but has \(4, 4\)",
        ),
        (lambda: waves.Backflow(determinants=0), "`determinants` must be at least 1"),
        (lambda: waves.free_orbitals(np.ones((2, 3)), 1), "must be a square matrix"),
        (lambda: hopping_terms(1, 1), "both are 1"),
    ],
)
def test_bad_input(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
