"""Problems by name, as a command line gives them: an operator, a network that suits it, the exact energy if known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ketwork.waves import exact, fermions, hamiltonians, lattices
from ketwork.waves.lattices import Lattice
from ketwork.waves.models.autoregressive import CausalTransformer, MaskedDense
from ketwork.waves.models.dense import FeedForward
from ketwork.waves.models.determinants import Backflow, Slater, free_orbitals
from ketwork.waves.models.jastrow import Jastrow
from ketwork.waves.models.network import Network
from ketwork.waves.models.rbm import RBM
from ketwork.waves.models.symmetric import SymmetricRBM
from ketwork.waves.models.vision import VisionTransformer
from ketwork.waves.molecules import molecule
from ketwork.waves.operators import Operator
from ketwork.waves.structure import sign_rule

PROBLEMS = ("ising", "heisenberg", "j1j2", "molecule", "fermi-hubbard", "t-v")
MODELS = ("rbm", "symmetric", "jastrow", "dense", "masked", "transformer", "vision")
FERMION_MODELS = ("slater", "backflow")
"""Models for `molecule`, `fermi-hubbard` and `t-v`, beside the others."""

SOLVABLE = 2**16
"""Spaces up to this size are solved exactly beside the run: a second or two."""


@dataclass(frozen=True)
class Problem:
    """An operator with its name, and its lattice where it has one.

    `closed_form` is the exact energy where a formula gives it; `orbitals` are those of fermions without interaction,
    where they are not the first sites; `suits` is the model that suits it.
    """

    title: str
    operator: Operator
    lattice: Lattice | None = None
    closed_form: float | None = None
    orbitals: tuple[np.ndarray, ...] | None = None
    suits: str = "rbm"

    @property
    def signs(self) -> bool:
        """Whether the ground state may have signs, so that a network of positive amplitudes is not enough."""
        return sign_rule(self.operator) != frozenset()

    def exact(self) -> float | None:
        """The exact ground energy: the closed form, or Lanczos where the space is small; None beyond."""
        if self.closed_form is not None or self.operator.space.size > SOLVABLE:
            return self.closed_form
        return exact.ground_energy(self.operator)


def problem(
    name: str,
    *,
    sites: int = 20,
    lattice: str = "chain",
    periodic: bool = True,
    field: float = 1.0,
    coupling: float = 1.0,
    j2: float = 0.5,
    atoms: str = "H 0 0 0; H 0 0 0.7414",
    basis: str = "sto-3g",
    interaction: float = 4.0,
) -> Problem:
    """One of `PROBLEMS`. `sites` is the length of a chain and the side of any other lattice."""
    if name == "molecule":
        return Problem(f"{atoms}, {basis}", molecule(atoms, basis).operator, suits="backflow")
    if name not in PROBLEMS:
        raise ValueError(f"Argument `name` must be one of {', '.join(PROBLEMS)}, but is {name!r}.")
    made = _lattice(lattice, sites, periodic)
    where = f"{'periodic' if periodic else 'open'} {lattice} of {made.sites} sites"
    if name == "ising":
        free = (
            lattice == "chain" and periodic and sites % 2 == 0 and sites > 2
        )  # a ring of two has one bond, not two
        energy = exact.ising_chain_energy(sites, field, coupling) if free else None
        operator = hamiltonians.ising(made, field, coupling)
        return Problem(f"Ising, field {field:g}, {where}", operator, made, energy)
    if name == "heisenberg":
        operator = hamiltonians.heisenberg(made, coupling, magnetization=made.sites % 2)
        return Problem(f"Heisenberg, {where}", operator, made)
    if name in ("fermi-hubbard", "t-v"):
        return _fermions(name, made, interaction, coupling, where)
    operator = hamiltonians.j1j2(made, j2, coupling, magnetization=made.sites % 2)
    return Problem(f"J1–J2, J2 = {j2:g}, {where}", operator, made)


def network(name: str, of: Problem, *, alpha: int = 1) -> Network:
    """One of `MODELS` or `FERMION_MODELS`, of a size that `alpha` scales; complex where the ground state may have
    signs."""
    if name not in MODELS + FERMION_MODELS:
        raise ValueError(
            f"Argument `name` must be one of {', '.join(MODELS + FERMION_MODELS)}, but is {name!r}."
        )
    settings: dict[str, Any] = {"dtype": torch.complex64, "std": 0.05} if of.signs else {}
    if name in ("symmetric", "vision") and of.lattice is None:
        raise ValueError(f"The model {name!r} needs a lattice, but this problem has none. Use 'rbm'.")
    if name == "symmetric" and of.lattice is not None:
        return SymmetricRBM(of.lattice.translations(), alpha, **settings)
    if name == "vision" and of.lattice is not None:
        return VisionTransformer(of.lattice, dim=16 * alpha)
    if name == "dense":
        return FeedForward((32 * alpha,) * 2, phase=of.signs)
    if name == "masked":
        return MaskedDense(8 * alpha, phase=of.signs)
    if name == "transformer":
        return CausalTransformer(16 * alpha, phase=of.signs)
    if name == "slater":
        return Slater(orbitals=of.orbitals)
    if name == "backflow":
        return Backflow((64 * alpha,), orbitals=of.orbitals)
    return Jastrow(**settings) if name == "jastrow" else RBM(alpha, **settings)


def _fermions(name: str, lattice: Lattice, interaction: float, hopping: float, where: str) -> Problem:
    """Fermions on a lattice, half filled, with the orbitals of their hopping."""
    joined = np.zeros((lattice.sites, lattice.sites))
    for i, j in lattice.bonds():
        joined[i, j] = joined[j, i] = -hopping
    if name == "t-v":
        operator = fermions.spinless(lattice, interaction, hopping)
        title = f"t–V model, V/t = {interaction / hopping:g}, {where}"
    else:
        operator = fermions.hubbard(lattice, interaction, hopping)
        title = f"Fermi–Hubbard, U/t = {interaction / hopping:g}, {where}"
    counts = [total for _, total in operator.space.conserved]
    orbitals = tuple(free_orbitals(joined, count) for count in counts)
    return Problem(title, operator, lattice, orbitals=orbitals, suits="backflow")


def _lattice(name: str, sites: int, periodic: bool) -> Lattice:
    makers: dict[str, Callable[..., Lattice]] = {
        "chain": lattices.chain,
        "square": lattices.square,
        "triangular": lattices.triangular,
        "honeycomb": lattices.honeycomb,
        "kagome": lattices.kagome,
        "cube": lattices.cube,
    }
    if name not in makers:
        raise ValueError(f"Argument `lattice` must be one of {', '.join(makers)}, but is {name!r}.")
    return makers[name](sites, periodic=periodic)
