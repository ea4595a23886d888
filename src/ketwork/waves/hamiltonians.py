"""Hamiltonians by name, on a lattice: transverse-field Ising, XXZ and Heisenberg, J1–J2, Bose–Hubbard.

Pauli convention throughout: Heisenberg here is Σ σ·σ, four times Σ S·S.
"""

from collections.abc import Sequence

import numpy as np

from ketwork._compat import renamed
from ketwork.waves.lattices import Lattice
from ketwork.waves.local_matrices import LocalSum
from ketwork.waves.pauli import PauliSum
from ketwork.waves.spaces import bosons, spin_one, spins

Strength = float | Sequence[float] | np.ndarray
"""One number, or one for each site or bond."""


def ising(
    lattice: Lattice, field: Strength, coupling: Strength = 1.0, longitudinal: Strength = 0.0
) -> PauliSum:
    """H = −Σ_⟨ij⟩ J_ij Z_i Z_j − Σ_i h_i X_i − Σ_i g_i Z_i, the Ising model in a transverse (and longitudinal) field.

    Fields are one number or one a site, couplings one number or one a bond, in the order of `lattice.bonds()`.

    >>> from ketwork.waves.lattices import chain
    >>> ising(chain(20), field=1.0)
    PauliSum(40 strings on 20 sites)
    """
    sites, bonds = range(lattice.sites), lattice.bonds()
    terms = {
        f"Z{i} Z{j}": -c for (i, j), c in zip(bonds, each(coupling, len(bonds), "coupling"), strict=True)
    }
    terms |= {f"X{i}": -h for i, h in zip(sites, each(field, lattice.sites, "field"), strict=True)}
    terms |= {
        f"Z{i}": -g for i, g in zip(sites, each(longitudinal, lattice.sites, "longitudinal"), strict=True)
    }
    return PauliSum(spins(lattice.sites), terms)


@renamed(magnetisation="magnetization")
def xxz(
    lattice: Lattice,
    anisotropy: float = 1.0,
    coupling: Strength = 1.0,
    magnetization: int | None = 0,
    sign_rule: bool | None = None,
) -> PauliSum:
    """H = Σ_⟨ij⟩ J_ij (X_i X_j + Y_i Y_j + Δ Z_i Z_j), in the sector of a magnetization (None: all).

    `sign_rule` rotates one sublattice by π about z (`PauliSum.rotated`), so that the ground state of an
    antiferromagnet is positive; by default where the lattice is bipartite and every coupling positive. Energies and
    z-correlations do not change; x- and y-correlations between the sublattices change their sign. NetKet does the same.
    """
    terms: dict[str, complex] = {}
    bonds = lattice.bonds()
    strengths = each(coupling, len(bonds), "coupling")
    for (i, j), c in zip(bonds, strengths, strict=True):
        terms |= {f"X{i} X{j}": c, f"Y{i} Y{j}": c, f"Z{i} Z{j}": c * anisotropy}
    return _signed(PauliSum(spins(lattice.sites, magnetization), terms), lattice, sign_rule, min(strengths))


@renamed(magnetisation="magnetization")
def heisenberg(
    lattice: Lattice, coupling: Strength = 1.0, magnetization: int | None = 0, sign_rule: bool | None = None
) -> PauliSum:
    """H = Σ_⟨ij⟩ J_ij σ_i·σ_j: `xxz` with anisotropy 1."""
    return xxz(lattice, 1.0, coupling, magnetization, sign_rule)


@renamed(magnetisation="magnetization")
def j1j2(
    lattice: Lattice, j2: float, j1: float = 1.0, magnetization: int | None = 0, sign_rule: bool | None = None
) -> PauliSum:
    """H = J₁ Σ_⟨ij⟩ σ_i·σ_j + J₂ Σ_⟨⟨ij⟩⟩ σ_i·σ_j over nearest and next-nearest neighbours.

    The sign rule is that of the nearest-neighbour bonds; with J₂ the ground state keeps other signs.
    """
    terms: dict[str, complex] = {}
    for strength, shell in ((j1, 1), (j2, 2)):
        for i, j in lattice.bonds(shell):
            terms |= {f"{axis}{i} {axis}{j}": strength for axis in "XYZ"}
    return _signed(PauliSum(spins(lattice.sites, magnetization), terms), lattice, sign_rule, j1)


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


@renamed(magnetisation="magnetization")
def spin_one_heisenberg(lattice: Lattice, coupling: float = 1.0, magnetization: int | None = 0) -> LocalSum:
    """H = J Σ_⟨ij⟩ S_i·S_j for spin 1, with S and not σ (there are no Pauli matrices for spin 1)."""
    raising = np.diag([np.sqrt(2.0)] * 2, 1)
    z = np.diag([1.0, 0.0, -1.0])
    flip = (np.kron(raising, raising.T) + np.kron(raising.T, raising)) / 2
    bond = coupling * (flip + np.kron(z, z))
    return LocalSum(spin_one(lattice.sites, magnetization), [(pair, bond) for pair in lattice.bonds()])


def each(given: Strength, count: int, name: str) -> list[float]:
    """One number for each of `count` sites or bonds."""
    values = np.asarray(given, dtype=float)
    if values.shape not in ((), (count,)):
        raise ValueError(
            f"Argument `{name}` must be one number or {count} of them, but has shape {values.shape}."
        )
    return [float(value) for value in np.broadcast_to(values, (count,))]


def _signed(operator: PauliSum, lattice: Lattice, sign_rule: bool | None, least: float) -> PauliSum:
    other = lattice.sublattice()
    if sign_rule and other is None:
        raise ValueError("Argument `sign_rule` needs a bipartite lattice, but this one has odd loops.")
    wanted = least > 0 if sign_rule is None else sign_rule
    return operator.rotated(other) if other is not None and wanted else operator
