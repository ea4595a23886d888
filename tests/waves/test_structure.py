"""What operators do to their basis: leaks, and sign rules by exact ground states."""

import networkx
import numpy as np
import pytest

from ketwork import waves
from ketwork.waves.structure import excitation_energy, leak

FIXED = waves.spins(6, magnetization=0)
COUPLINGS = [
    1.0,
    -0.7,
    0.4,
    -1.3,
    0.9,
    0.5,
    -0.2,
    1.1,
]  # of an open chain and two more bonds: a tree has no loops
TREE = waves.graph(networkx.balanced_tree(2, 2))


def positive(operator: waves.Operator) -> bool:
    vector = waves.exact.ground_state_vector(operator).numpy()
    return bool((vector > -1e-10).all())


@pytest.mark.parametrize(
    "operator",
    [
        waves.ising(waves.chain(6), field=0.7),
        waves.ising(waves.chain(6), field=-0.7),
        waves.ising(waves.chain(6), field=[0.3, -0.4, 0.5, -0.6, 0.7, 0.8], coupling=-1.0),
        waves.heisenberg(waves.chain(6), sign_rule=False),
        waves.heisenberg(waves.chain(6), coupling=-1.0),
        waves.heisenberg(waves.square(2, 4), sign_rule=False),
        waves.xxz(waves.chain(6), 0.3, coupling=-0.8, magnetization=None),
        waves.xxz(TREE, 0.5, coupling=[0.7, -0.4, 1.0, 0.3, -0.9, 0.2], magnetization=1, sign_rule=False),
        waves.spin_one_heisenberg(waves.chain(4)),
        waves.bose_hubbard(waves.chain(4), 2.0, particles=3),
        waves.bose_hubbard(waves.chain(4), 2.0, hopping=-1.0, particles=3),
    ],
    ids=repr,
)
def test_the_rule_makes_every_off_diagonal_element_negative_and_the_ground_state_positive(operator) -> None:
    rule = waves.sign_rule(operator)
    assert rule is not None
    turned = operator.rotated(rule)
    matrix = turned.to_sparse().toarray()
    assert (matrix - np.diag(np.diag(matrix)) <= 1e-12).all()
    np.testing.assert_allclose(waves.exact.spectrum(turned), waves.exact.spectrum(operator), atol=1e-9)
    assert positive(turned)


@pytest.mark.parametrize(
    "operator",
    [
        waves.heisenberg(waves.chain(5), magnetization=1),
        waves.j1j2(waves.square(4), 0.5),
        waves.heisenberg(waves.triangular(3), magnetization=1),
        waves.PauliSum(waves.spins(3), {"Y0 Z1": 1.0, "X0": 0.2}),
        waves.PauliSum(waves.spins(3), {"X0 Z1": 1.0}),
    ],
    ids=repr,
)
def test_frustrated_and_complex_operators_have_none(operator) -> None:
    assert waves.sign_rule(operator) is None


def test_what_moves_nothing_needs_no_signs() -> None:
    aligned = waves.heisenberg(waves.chain(4), magnetization=4)
    diagonal = waves.PauliSum(waves.spins(3), {"Z0 Z1": 1.0})
    assert waves.sign_rule(aligned) == waves.sign_rule(diagonal) == frozenset()
    run = waves.ground_state(aligned, waves.Wave(waves.RBM(), aligned.space), steps=10)
    assert (run.ended, float(run.energy)) == ("converged", 4.0)


def test_the_energy_that_an_operator_leads_to_above_the_mean_field() -> None:
    assert excitation_energy(waves.ising(waves.chain(6), 0.5)) == pytest.approx(4.0)
    operator = waves.hubbard(waves.chain(2, periodic=False), 8.0)
    assert excitation_energy(operator) == pytest.approx(
        8.0
    )  # from a singly occupied pair to a doubly occupied site
    assert excitation_energy(waves.PauliSum(waves.spins(3), {"Z0 Z1": 1.0})) == 0
    assert excitation_energy(1000 + operator) == pytest.approx(8.0)


def test_large_spaces_are_probed() -> None:
    assert waves.sign_rule(waves.ising(waves.chain(40), 1.0)) == frozenset()
    assert waves.sign_rule(waves.ising(waves.chain(40), -1.0)) == frozenset(range(40))
    rule = waves.sign_rule(waves.heisenberg(waves.square(6), sign_rule=False))
    assert rule in (waves.square(6).sublattice(), frozenset(range(36)) - waves.square(6).sublattice())
    assert waves.sign_rule(waves.j1j2(waves.square(6), 0.5)) is None


@pytest.mark.parametrize("sites", [6, 40])
def test_operators_that_leave_their_space(sites) -> None:
    space = waves.spins(sites, magnetization=0)
    field = waves.PauliSum(space, {f"X{i}": 1.0 for i in range(sites)})
    found = leak(field)
    assert found is not None
    inside, outside = found
    assert space.contains(inside)
    assert not space.contains(outside)
    assert float((inside - outside).abs().sum()) == 2
    assert leak(waves.heisenberg(waves.chain(sites))) is None
    assert leak(waves.ising(waves.chain(sites), 1.0)) is None


def test_runs_and_expectations_refuse_them() -> None:
    field = waves.PauliSum(FIXED, {"X0": 1.0})
    wave = waves.Wave(waves.RBM(), FIXED)
    with pytest.raises(ValueError, match="must keep to its space, but leads out of it"):
        waves.ground_state(field, wave, steps=2)
    with pytest.raises(ValueError, match=r"waves.Projected\(operator\)"):
        waves.expect(field, wave, waves.Metropolis().sample(wave, 100))


def test_the_restriction_of_an_operator_is_the_block_of_its_matrix() -> None:
    field = waves.PauliSum(FIXED, {"X0": 1.0, "X0 X1": 0.5, "Z2": 0.3})
    restricted = waves.Projected(field)
    everything = waves.PauliSum(waves.spins(6), {"X0": 1.0, "X0 X1": 0.5, "Z2": 0.3}).to_sparse().toarray()
    block = everything[np.ix_(FIXED.keys, FIXED.keys)]
    np.testing.assert_allclose(restricted.to_sparse().toarray(), block, atol=1e-14)
    waves.ground_state(
        restricted, waves.Wave(waves.RBM(dtype=None), FIXED, signs=()), steps=2, n_samples=None
    )


def test_a_positive_wave_is_refused_where_the_ground_state_has_signs() -> None:
    signed, frustrated = waves.ising(waves.chain(6), -1.0), waves.heisenberg(waves.chain(5), magnetization=1)
    with pytest.raises(ValueError, match=r"Wave\(…, signs=waves.sign_rule\(operator\)\)"):
        waves.ground_state(signed, waves.Wave(waves.RBM(), signed.space), steps=2)
    with pytest.raises(ValueError, match="is frustrated or complex"):
        waves.ground_state(frustrated, waves.Wave(waves.RBM(), frustrated.space), steps=2)
    wave = waves.Wave(waves.RBM(), frustrated.space, signs=())  # a bound, asked for
    run = waves.ground_state(frustrated, wave, steps=40, n_samples=None)
    assert run.energy > waves.exact.ground_energy(frustrated) + 0.1


def test_a_sign_rule_in_the_wave_is_one_in_the_operator() -> None:
    """The same energies, step for step; and the wave's own amplitudes carry the signs."""
    plain = waves.heisenberg(waves.chain(8), sign_rule=False)
    rule = waves.sign_rule(plain)
    one = waves.Wave(waves.RBM(), plain.space, signs=rule)
    two = waves.Wave(waves.RBM(), plain.space)
    here = waves.ground_state(plain, one, steps=30, n_samples=300)
    there = waves.ground_state(plain.rotated(rule), two, steps=30, n_samples=300)
    assert [s.energy for s in here.history] == pytest.approx([s.energy for s in there.history], abs=1e-5)
    ket = one.ket()
    assert float(ket.amplitudes.min()) < -0.1
    energy = ket.amplitudes[plain.space.keys].numpy()
    assert energy @ plain.to_sparse() @ energy == pytest.approx(float(here.energy), abs=0.05)
    swap = waves.renyi2(one, [0, 1, 2], waves.FullSum().sample(one, 1))
    sampled = waves.renyi2(one, [0, 1, 2], waves.Metropolis(chains=64).sample(one, 6400))
    assert abs(float(sampled.value - swap.value)) < 5 * float(sampled.stderr)
