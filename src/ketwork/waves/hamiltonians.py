"""Hamiltonians by name, on a lattice: transverse-field Ising, XXZ and Heisenberg, J1–J2, Bose–Hubbard.

Pauli convention throughout: Heisenberg here is Σ σ·σ, four times Σ S·S.
"""

import numpy as np

from ketwork.waves.lattices import Lattice
from ketwork.waves.local import LocalSum
from ketwork.waves.pauli import PauliSum
from ketwork.waves.spaces import bosons, spin_one, spins


def ising(lattice: Lattice, field: float, coupling: float = 1.0) -> PauliSum:
    """H = −J Σ_⟨ij⟩ Z_i Z_j − h Σ_i X_i, the transverse-field Ising model, on free spins.

    >>> from ketwork.waves.lattices import chain
    >>> ising(chain(20), field=1.0)
    PauliSum(40 strings on 20 sites)
    """
    bonds = {f"Z{i} Z{j}": -coupling for i, j in lattice.bonds()}
    return PauliSum(spins(lattice.sites), bonds | {f"X{i}": -field for i in range(lattice.sites)})


def xxz(
    lattice: Lattice,
    anisotropy: float = 1.0,
    coupling: float = 1.0,
    magnetisation: int | None = 0,
    sign_rule: bool | None = None,
) -> PauliSum:
    """H = J Σ_⟨ij⟩ (X_i X_j + Y_i Y_j + Δ Z_i Z_j), in the sector of a magnetisation (None: all).

    `sign_rule` rotates one sublattice by π about z (`PauliSum.rotated`), so that the ground state of an
    antiferromagnet is positive; by default where the lattice is bipartite. Energies and z-correlations do not
    change; x- and y-correlations between the sublattices change their sign. NetKet does the same.
    """
    terms: dict[str, complex] = {}
    for i, j in lattice.bonds():
        terms |= {f"X{i} X{j}": coupling, f"Y{i} Y{j}": coupling, f"Z{i} Z{j}": coupling * anisotropy}
    return _signed(PauliSum(spins(lattice.sites, magnetisation), terms), lattice, sign_rule)


def heisenberg(
    lattice: Lattice, coupling: float = 1.0, magnetisation: int | None = 0, sign_rule: bool | None = None
) -> PauliSum:
    """H = J Σ_⟨ij⟩ σ_i·σ_j: `xxz` with anisotropy 1."""
    return xxz(lattice, 1.0, coupling, magnetisation, sign_rule)


def j1j2(
    lattice: Lattice, j2: float, j1: float = 1.0, magnetisation: int | None = 0, sign_rule: bool | None = None
) -> PauliSum:
    """H = J₁ Σ_⟨ij⟩ σ_i·σ_j + J₂ Σ_⟨⟨ij⟩⟩ σ_i·σ_j over nearest and next-nearest neighbours.

    The sign rule is that of the nearest-neighbour bonds; with J₂ the ground state keeps other signs.
    """
    terms: dict[str, complex] = {}
    for strength, shell in ((j1, 1), (j2, 2)):
        for i, j in lattice.bonds(shell):
            terms |= {f"{axis}{i} {axis}{j}": strength for axis in "XYZ"}
    return _signed(PauliSum(spins(lattice.sites, magnetisation), terms), lattice, sign_rule)


def bose_hubbard(
    lattice: Lattice, interaction: float, hopping: float = 1.0, most: int = 3, particles: int | None = None
) -> LocalSum:
    """H = −t Σ_⟨ij⟩ (b†_i b_j + b†_j b_i) + U/2 Σ n(n−1), at most `most` bosons on a site."""
    lower = np.diag(np.sqrt(np.arange(1.0, most + 1)), 1)
    hop = -hopping * (np.kron(lower.T, lower) + np.kron(lower, lower.T))
    number = np.arange(most + 1.0)
    repulsion = np.diag(interaction / 2 * number * (number - 1))
    terms = [((i, j), hop) for i, j in lattice.bonds()] + [((i,), repulsion) for i in range(lattice.sites)]
    return LocalSum(bosons(lattice.sites, most, particles), terms)


def spin_one_heisenberg(lattice: Lattice, coupling: float = 1.0, magnetisation: int | None = 0) -> LocalSum:
    """H = J Σ_⟨ij⟩ S_i·S_j for spin 1, with S and not σ (there are no Pauli matrices for spin 1)."""
    raising = np.diag([np.sqrt(2.0)] * 2, 1)
    z = np.diag([1.0, 0.0, -1.0])
    flip = (np.kron(raising, raising.T) + np.kron(raising.T, raising)) / 2
    bond = coupling * (flip + np.kron(z, z))
    return LocalSum(spin_one(lattice.sites, magnetisation), [(pair, bond) for pair in lattice.bonds()])


def _signed(operator: PauliSum, lattice: Lattice, sign_rule: bool | None) -> PauliSum:
    other = lattice.sublattice()
    if sign_rule and other is None:
        raise ValueError("Argument `sign_rule` needs a bipartite lattice, but this one has odd loops.")
    return operator.rotated(other) if other is not None and sign_rule is not False else operator
