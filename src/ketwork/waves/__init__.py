"""Neural quantum states: a network gives every basis state's amplitude, variational Monte Carlo trains it.

>>> from ketwork import waves
>>> H = waves.ising(waves.chain(8), field=1.0)
>>> psi = waves.Wave(waves.RBM(alpha=1), H.space)
>>> run = waves.ground_state(H, psi, steps=60, n_samples=256, seed=0)
>>> abs(run.energy - waves.exact.ising_chain_energy(8)) < 0.01
True

- Problems: `spaces`, `lattices`, `operators` (what an operator is), `pauli`, `local_matrices`, `fermions` and `algebra`
  (their rows: connected configurations), `hamiltonians` and `molecules` (by name), `sectors`
- Waves: `wave`, `models`, `samplers`, `local_energy`, `estimates`, `observables`
- Training: `run`, `training`, `optimizers`, `reconfiguration`, `objectives`, `guards`, `verdicts`; `spectra` for
  excited states, `dynamics` in time
- Beside them: `exact`, `checkpoints`, `wave_files`, `conversions`
"""

from importlib.util import find_spec
from typing import Any

if find_spec("numba") is None:
    raise ImportError("ketwork.waves needs numba. Install it with `pip install 'ketwork[waves]'`.")

from ketwork._compat import moved
from ketwork.records import Checkpoint
from ketwork.waves import exact, problems
from ketwork.waves.algebra import Projected
from ketwork.waves.checkpoints import steps_in
from ketwork.waves.conversions import from_openfermion, from_qiskit, from_qutip
from ketwork.waves.dynamics import Evolution, evolve
from ketwork.waves.estimates import Expectation, estimate
from ketwork.waves.fermions import hubbard, spinless
from ketwork.waves.guards import Guard
from ketwork.waves.hamiltonians import bose_hubbard, heisenberg, ising, j1j2, spin_one_heisenberg, xxz
from ketwork.waves.lattices import Lattice, bravais, chain, cube, graph, honeycomb, kagome, square, triangular
from ketwork.waves.local_energy import local_energies
from ketwork.waves.local_matrices import LocalSum
from ketwork.waves.logs import JsonLines, TensorBoard
from ketwork.waves.matching import match
from ketwork.waves.models.autoregressive import Autoregressive, CausalTransformer, MaskedDense
from ketwork.waves.models.dense import FeedForward
from ketwork.waves.models.determinants import Backflow, Slater, free_orbitals
from ketwork.waves.models.jastrow import Jastrow
from ketwork.waves.models.network import Network
from ketwork.waves.models.pairing import PairProduct
from ketwork.waves.models.rbm import RBM
from ketwork.waves.models.symmetric import SymmetricRBM, Symmetrized
from ketwork.waves.models.vision import VisionTransformer
from ketwork.waves.molecules import Molecule, molecule
from ketwork.waves.observables import (
    Measured,
    correlations,
    expect,
    magnetizations,
    momenta,
    renyi2,
    structure_factor,
)
from ketwork.waves.operators import Operator
from ketwork.waves.optimizers import SR, Adam, Optimizer, annealed, constant
from ketwork.waves.overlaps import fidelity
from ketwork.waves.pauli import PauliSum
from ketwork.waves.results import Run, RunInterrupted, Step, Stopped, beside, unfinished
from ketwork.waves.run import default_sampler, ground_state
from ketwork.waves.samplers.metropolis import Metropolis
from ketwork.waves.samplers.rules import Exchange, Flip, Rule
from ketwork.waves.samplers.sampler import Direct, FullSum, Sampler, Samples
from ketwork.waves.samplers.tempering import Tempering
from ketwork.waves.samplers.unique import WithoutReplacement
from ketwork.waves.sectors import Sector, momentum_sectors
from ketwork.waves.spaces import Space, blockaded, bosons, electrons, qubits, spin_one, spins
from ketwork.waves.spectra import Level, Spectrum, spectrum
from ketwork.waves.steady_states import steady_state
from ketwork.waves.structure import sign_rule
from ketwork.waves.wave import Wave

__all__ = [
    "RBM",
    "SR",
    "Adam",
    "Autoregressive",
    "Backflow",
    "CausalTransformer",
    "Checkpoint",
    "Direct",
    "Evolution",
    "Exchange",
    "Expectation",
    "FeedForward",
    "Flip",
    "FullSum",
    "Guard",
    "Jastrow",
    "JsonLines",
    "Lattice",
    "Level",
    "LocalSum",
    "MaskedDense",
    "Measured",
    "Metropolis",
    "Molecule",
    "Network",
    "Operator",
    "Optimizer",
    "PairProduct",
    "PauliSum",
    "Projected",
    "Rule",
    "Run",
    "RunInterrupted",
    "Sampler",
    "Samples",
    "Sector",
    "Slater",
    "Space",
    "Spectrum",
    "Step",
    "Stopped",
    "SymmetricRBM",
    "Symmetrized",
    "Tempering",
    "TensorBoard",
    "VisionTransformer",
    "Wave",
    "WithoutReplacement",
    "annealed",
    "beside",
    "blockaded",
    "bose_hubbard",
    "bosons",
    "bravais",
    "chain",
    "constant",
    "correlations",
    "cube",
    "default_sampler",
    "electrons",
    "estimate",
    "evolve",
    "exact",
    "expect",
    "fidelity",
    "free_orbitals",
    "from_openfermion",
    "from_qiskit",
    "from_qutip",
    "graph",
    "ground_state",
    "heisenberg",
    "honeycomb",
    "hubbard",
    "ising",
    "j1j2",
    "kagome",
    "local_energies",
    "magnetizations",
    "match",
    "molecule",
    "momenta",
    "momentum_sectors",
    "problems",
    "qubits",
    "renyi2",
    "sign_rule",
    "spectrum",
    "spin_one",
    "spin_one_heisenberg",
    "spinless",
    "spins",
    "square",
    "steady_state",
    "steps_in",
    "structure_factor",
    "triangular",
    "unfinished",
    "xxz",
]

_RENAMED = {
    "Estimate": "Expectation",
    "Optimiser": "Optimizer",
    "Symmetrised": "Symmetrized",
    "magnetisations": "magnetizations",
}


def __getattr__(name: str) -> Any:
    """Names of version 0.1, which warn."""
    if name in _RENAMED:
        moved(f"`waves.{name}` is now called `waves.{_RENAMED[name]}`.", level=2)
        return globals()[_RENAMED[name]]
    raise AttributeError(f"module 'ketwork.waves' has no attribute {name!r}")
