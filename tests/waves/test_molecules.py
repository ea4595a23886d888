"""STO-3G molecules: the exact energy of the operator, and of trained waves within 1.6 mHa."""

import numpy as np
import pytest
import torch

from ketwork import waves

H2 = "H 0 0 0; H 0 0 0.7414"
H4 = "; ".join(f"H 0 0 {k}" for k in range(4))
LIH = "Li 0 0 0; H 0 0 1.5949"
KNOWN = {"H2": (H2, -1.13727017), "H4": (H4, -2.16638745), "LiH": (LIH, -7.88240341)}


@pytest.mark.parametrize("name", KNOWN)
def test_the_operator_has_the_full_configuration_interaction_energy(name) -> None:
    atoms, energy = KNOWN[name]
    made = waves.molecule(atoms)
    assert waves.exact.ground_energy(made.operator) == pytest.approx(energy, abs=1e-7)
    assert made.hartree_fock > energy
    assert made.operator.is_hermitian()


@pytest.mark.parametrize("name", ["H2", "H4"])
def test_a_wave_reaches_chemical_accuracy(name) -> None:
    atoms, energy = KNOWN[name]
    operator = waves.molecule(atoms).operator
    wave = waves.Wave(waves.RBM(alpha=2, std=0.1, dtype=torch.complex128), operator.space)
    run = waves.ground_state(operator, wave, steps=300, n_samples=None)
    assert energy - 1e-7 <= float(run.energy) < energy + 1.6e-3


def test_a_radical_has_unpaired_electrons() -> None:
    made = waves.molecule("H 0 0 0; H 0 0 1; H 0 0 2", spin=1)
    assert made.electrons == (2, 1)
    assert made.operator.space == waves.electrons(3, 2, 1)


@pytest.mark.parametrize(("atoms", "frozen"), [(LIH, 1), (LIH, 2), (H4, 1)])
def test_frozen_orbitals_are_the_determinants_that_fill_them(atoms, frozen) -> None:
    made, whole = waves.molecule(atoms, frozen=frozen), waves.molecule(atoms)
    filled = whole.operator.space.states()[:, : 2 * frozen].all(1).numpy()
    block = whole.operator.to_sparse()[filled][:, filled].toarray()
    np.testing.assert_allclose(made.operator.to_sparse().toarray(), block, atol=1e-10)
    assert made.hartree_fock == pytest.approx(whole.hartree_fock, abs=1e-9)
    assert made.electrons == (whole.electrons[0] - frozen, whole.electrons[1] - frozen)


def test_more_frozen_orbitals_than_electrons_are_refused() -> None:
    with pytest.raises(ValueError, match="`frozen` must be between 0 and 1 here, but is 2"):
        waves.molecule(H2, frozen=2)
