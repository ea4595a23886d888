"""STO-3G molecules: the exact energy of the operator, and of trained waves within 1.6 mHa."""

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


@pytest.mark.parametrize("name", KNOWN)
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
