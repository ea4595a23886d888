"""Fermions on sites by Jordan and Wigner's transformation: hopping, densities, and the lattice models made of them.

Site k of a space is mode k; a†_k = (Z_0 … Z_{k−1}) (X_k − iY_k)/2, level 1 is occupied. For two spins the modes of a
lattice site i are 2i (up) and 2i + 1 (down), as `electrons` has them.
"""

from collections.abc import Mapping

from ketwork.waves.hamiltonians import Strength, each
from ketwork.waves.lattices import Lattice
from ketwork.waves.pauli import PauliSum
from ketwork.waves.spaces import electrons, qubits

Terms = dict[str, complex]


def hopping_terms(i: int, j: int, amplitude: complex = 1.0) -> Terms:
    """t a†_i a_j + t* a†_j a_i of two modes as Pauli strings.

    >>> hopping_terms(0, 2)
    {'X0 Z1 X2': 0.5, 'Y0 Z1 Y2': 0.5}
    """
    if i == j:
        raise ValueError(f"A particle hops between two modes, but both are {i}.")
    if i > j:
        i, j, amplitude = j, i, complex(amplitude).conjugate()
    between = "".join(f" Z{k}" for k in range(i + 1, j))
    t = complex(amplitude)
    terms: Terms = {f"X{i}{between} X{j}": t.real / 2, f"Y{i}{between} Y{j}": t.real / 2}
    if t.imag:
        terms |= {f"X{i}{between} Y{j}": -t.imag / 2, f"Y{i}{between} X{j}": t.imag / 2}
    return terms


def density_terms(amplitude: float, *modes: int) -> Terms:
    """c n_i n_j … of one or two modes as Pauli strings: n = (1 − Z)/2.

    >>> density_terms(1.0, 3)
    {'': 0.5, 'Z3': -0.5}
    """
    if len(modes) == 1:
        return {"": amplitude / 2, f"Z{modes[0]}": -amplitude / 2}
    i, j = modes
    quarter = amplitude / 4
    return {"": quarter, f"Z{i}": -quarter, f"Z{j}": -quarter, f"Z{i} Z{j}": quarter}


def hubbard(
    lattice: Lattice,
    interaction: Strength,
    hopping: Strength = 1.0,
    up: int | None = None,
    down: int | None = None,
) -> PauliSum:
    """H = −Σ_⟨ij⟩σ t_ij (c†_iσ c_jσ + h.c.) + Σ_i U_i n_i↑ n_i↓, the Fermi–Hubbard model; half filled by
    default.

    >>> from ketwork.waves import chain, exact
    >>> round(exact.ground_energy(hubbard(chain(2, periodic=False), interaction=4.0)), 8)  # (U − √(U² + 16t²))/2
    -0.82842712
    """
    sites, bonds = lattice.sites, lattice.bonds()
    half = sites // 2
    parts = []
    for (i, j), t in zip(bonds, each(hopping, len(bonds), "hopping"), strict=True):
        parts += [hopping_terms(2 * i + s, 2 * j + s, -t) for s in (0, 1)]
    strengths = each(interaction, sites, "interaction")
    parts += [density_terms(u, 2 * i, 2 * i + 1) for i, u in enumerate(strengths)]
    number_up = sites - half if up is None else up
    return PauliSum(electrons(sites, number_up, half if down is None else down), added(*parts))


def spinless(
    lattice: Lattice, interaction: Strength, hopping: Strength = 1.0, particles: int | None = None
) -> PauliSum:
    """H = Σ_⟨ij⟩ [−t_ij (c†_i c_j + h.c.) + V_ij n_i n_j], the t–V model of spinless fermions; half filled by default.

    >>> from ketwork.waves import chain, exact
    >>> round(exact.ground_energy(spinless(chain(4, periodic=False), interaction=0.0)), 6)  # −2 cos(π/5) − 2 cos(2π/5)
    -2.236068
    """
    bonds = lattice.bonds()
    parts = [
        hopping_terms(i, j, -t) for (i, j), t in zip(bonds, each(hopping, len(bonds), "hopping"), strict=True)
    ]
    strengths = each(interaction, len(bonds), "interaction")
    parts += [density_terms(v, i, j) for (i, j), v in zip(bonds, strengths, strict=True)]
    count = lattice.sites // 2 if particles is None else particles
    return PauliSum(qubits(lattice.sites, ones=count), added(*parts))


def added(*parts: Mapping[str, complex]) -> Terms:
    """The sum of Pauli strings with coefficients."""
    total: Terms = {}
    for part in parts:
        for text, coefficient in part.items():
            total[text] = total.get(text, 0.0) + coefficient
    return total
