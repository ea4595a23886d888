"""Neural quantum states: a network gives every basis state's amplitude, variational Monte Carlo trains it.

>>> from ketwork import waves
>>> H = waves.ising(waves.chain(8), field=1.0)
>>> psi = waves.Wave(waves.RBM(alpha=1), H.space)
>>> run = waves.ground_state(H, psi, steps=60, samples=256, seed=0)
>>> abs(run.energy.mean - waves.exact.ising_chain_energy(8)) < 0.01
True
"""

from importlib.util import find_spec

if find_spec("numba") is None:
    raise ImportError("ketwork.waves needs numba. Install it with `pip install 'ketwork[waves]'`.")

from ketwork.waves import exact
from ketwork.waves.conversions import from_openfermion, from_qiskit, from_qutip
from ketwork.waves.dynamics import evolve
from ketwork.waves.estimates import Estimate, estimate
from ketwork.waves.ground_state import Run, Step, Stopped, ground_state
from ketwork.waves.guards import Guard
from ketwork.waves.hamiltonians import bose_hubbard, heisenberg, ising, j1j2, spin_one_heisenberg, xxz
from ketwork.waves.lattices import Lattice, chain, graph, honeycomb, kagome, square, triangular
from ketwork.waves.local import LocalSum
from ketwork.waves.local_energy import local_energies
from ketwork.waves.models.autoregressive import Autoregressive, CausalTransformer, MaskedDense
from ketwork.waves.models.dense import FeedForward
from ketwork.waves.models.jastrow import Jastrow
from ketwork.waves.models.network import Network
from ketwork.waves.models.rbm import RBM
from ketwork.waves.models.symmetric import SymmetricRBM, Symmetrised
from ketwork.waves.models.vision import VisionTransformer
from ketwork.waves.molecules import Molecule, molecule
from ketwork.waves.observables import (
    Measured,
    correlations,
    expect,
    fidelity,
    magnetisations,
    momenta,
    renyi2,
    structure_factor,
)
from ketwork.waves.operators import Operator
from ketwork.waves.optimisers import SR, Adam, Optimiser, annealed, constant
from ketwork.waves.pauli import PauliSum
from ketwork.waves.samplers.metropolis import Metropolis
from ketwork.waves.samplers.rules import Exchange, Flip, Rule
from ketwork.waves.samplers.sampler import Direct, FullSum, Sampler, Samples
from ketwork.waves.samplers.tempering import Tempering
from ketwork.waves.spaces import Space, bosons, electrons, qubits, spin_one, spins
from ketwork.waves.wave import Wave

__all__ = [
    "RBM",
    "SR",
    "Adam",
    "Autoregressive",
    "CausalTransformer",
    "Direct",
    "Estimate",
    "Exchange",
    "FeedForward",
    "Flip",
    "FullSum",
    "Guard",
    "Jastrow",
    "Lattice",
    "LocalSum",
    "MaskedDense",
    "Measured",
    "Metropolis",
    "Molecule",
    "Network",
    "Operator",
    "Optimiser",
    "PauliSum",
    "Rule",
    "Run",
    "Sampler",
    "Samples",
    "Space",
    "Step",
    "Stopped",
    "SymmetricRBM",
    "Symmetrised",
    "Tempering",
    "VisionTransformer",
    "Wave",
    "annealed",
    "bose_hubbard",
    "bosons",
    "chain",
    "constant",
    "correlations",
    "electrons",
    "estimate",
    "evolve",
    "exact",
    "expect",
    "fidelity",
    "from_openfermion",
    "from_qiskit",
    "from_qutip",
    "graph",
    "ground_state",
    "heisenberg",
    "honeycomb",
    "ising",
    "j1j2",
    "kagome",
    "local_energies",
    "magnetisations",
    "molecule",
    "momenta",
    "qubits",
    "renyi2",
    "spin_one",
    "spin_one_heisenberg",
    "spins",
    "square",
    "structure_factor",
    "triangular",
    "xxz",
]
