"""Quantum information on PyTorch tensors: kets, density operators, measurements and measures.

States are frozen and batched; every measure takes a `Ket` or
a `Density` and works on whichever side is smaller.
"""

from ketwork.quantum.decompositions import Polar, polar
from ketwork.quantum.distances import (
    bures_angle,
    bures_distance,
    fidelity,
    jensen_shannon,
    overlap,
    relative_entropy,
    root_fidelity,
    trace_distance,
)
from ketwork.quantum.ensembles import Ensemble, holevo
from ketwork.quantum.estimates import Estimate, Interval, decimals
from ketwork.quantum.interop import from_qutip, to_qutip
from ketwork.quantum.measurements import Measurement
from ketwork.quantum.measures import (
    coherence,
    effective_rank,
    entropy,
    mutual_information,
    negativity,
    participation_ratio,
    purity,
    shannon_entropy,
)
from ketwork.quantum.sampling import random_density, random_ket, random_unitary
from ketwork.quantum.seeding import Seed, generator_from
from ketwork.quantum.states import Density, Ket, State

__all__ = [
    "Density",
    "Ensemble",
    "Estimate",
    "Interval",
    "Ket",
    "Measurement",
    "Polar",
    "Seed",
    "State",
    "bures_angle",
    "bures_distance",
    "coherence",
    "decimals",
    "effective_rank",
    "entropy",
    "fidelity",
    "from_qutip",
    "generator_from",
    "holevo",
    "jensen_shannon",
    "mutual_information",
    "negativity",
    "overlap",
    "participation_ratio",
    "polar",
    "purity",
    "random_density",
    "random_ket",
    "random_unitary",
    "relative_entropy",
    "root_fidelity",
    "shannon_entropy",
    "to_qutip",
    "trace_distance",
]
