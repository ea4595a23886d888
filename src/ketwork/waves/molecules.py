"""Molecules as qubit operators, through PySCF (integrals) and OpenFermion (Jordan–Wigner): extra `chem`."""

from dataclasses import dataclass

import numpy as np

from ketwork.waves.conversions import from_openfermion
from ketwork.waves.pauli import PauliSum
from ketwork.waves.spaces import electrons


@dataclass(frozen=True)
class Molecule:
    """A molecule's Hamiltonian in hartree, on the occupations of its spin orbitals, and its mean-field energy."""

    operator: PauliSum
    hartree_fock: float
    orbitals: int
    electrons: tuple[int, int]


def molecule(
    atoms: str, basis: str = "sto-3g", *, charge: int = 0, spin: int = 0, frozen: int = 0
) -> Molecule:
    """The Hamiltonian of atoms, given as PySCF reads them: `"H 0 0 0; H 0 0 0.7414"`, in ångström.

    Integrals in the orbitals of a restricted Hartree–Fock calculation, then H = Σ h_pq a†_p a_q + ½ Σ h_pqrs
    a†_p a†_q a_r a_s + E_nuclear, then Jordan–Wigner. `spin` is the number of unpaired electrons. Numbers of
    up and down electrons are conserved, so the space holds those configurations alone. The `frozen` lowest orbitals
    stay doubly occupied: their mean field is part of the Hamiltonian of the rest.

    Raises:
        ValueError: Hartree–Fock did not converge, or `frozen` is more than there are pairs of electrons.
    """
    import openfermion
    import pyscf

    built = pyscf.gto.M(atom=atoms, basis=basis, charge=charge, spin=spin, unit="angstrom", verbose=0)
    with pyscf.lib.temporary_env(pyscf.scf.hf, MUTE_CHKFILE=True):  # a temporary file that would stay open
        field = (pyscf.scf.RHF(built) if spin == 0 else pyscf.scf.ROHF(built)).run()
    if not field.converged:
        raise ValueError("The Hartree–Fock calculation of these atoms did not converge. Check the geometry.")
    c = field.mo_coeff
    orbitals = c.shape[1]
    one = c.T @ field.get_hcore() @ c
    pairs = pyscf.ao2mo.restore(1, pyscf.ao2mo.kernel(built, c), orbitals)  # (pq|rs), chemists' order
    up, down = built.nelec
    if not 0 <= frozen <= min(up, down):
        raise ValueError(f"Argument `frozen` must be between 0 and {min(up, down)} here, but is {frozen}.")
    core, constant = slice(0, frozen), float(built.energy_nuc())
    field_of_core = 2 * np.einsum("pqii->pq", pairs[:, :, core, core]) - np.einsum(
        "piiq->pq", pairs[:, core, core, :]
    )
    constant += float((2 * one + field_of_core)[core, core].trace())
    one, pairs, orbitals = (
        (one + field_of_core)[frozen:, frozen:],
        pairs[frozen:, frozen:, frozen:, frozen:],
        orbitals - frozen,
    )
    up, down = up - frozen, down - frozen
    two = np.asarray(pairs.transpose(0, 2, 3, 1), order="C")  # ⟨ps|qr⟩: a†_p a†_q a_r a_s
    spin_one, spin_two = openfermion.chem.molecular_data.spinorb_from_spatial(one, two)
    interaction = openfermion.InteractionOperator(constant, spin_one, 0.5 * spin_two)
    strings = openfermion.jordan_wigner(interaction)
    return Molecule(
        from_openfermion(strings, electrons(orbitals, up, down)), float(field.e_tot), orbitals, (up, down)
    )
