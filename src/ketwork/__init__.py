"""ketwork (ket + network): neural networks and quantum mechanics, linked by exact mathematics.

*Network to quantum*: `study` reads any trained PyTorch network as a quantum system, in one pass over data;
`compare` says how alike every pair of layers is, within a model or between two; `collapse` measures layers while the
network runs; `compress` makes a network smaller without training; `probe` reads labels from arrays.
*Quantum to network*: `waves` has neural wave functions and finds ground states with them.
*The toolbox underneath*: `Ket`, `Density`, `Measurement` and information measures, useful alone.

Everything is imported when it is first used: `import ketwork.quantum` loads torch and numpy alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ketwork._version import __version__ as __version__

if TYPE_CHECKING:
    from ketwork import waves as waves
    from ketwork.networks.activations.captures import capture
    from ketwork.networks.activations.encoding import decode, encode
    from ketwork.networks.activations.reading import Reading
    from ketwork.networks.activations.selectors import SelectorError
    from ketwork.networks.collapse.curve import CollapseCurve
    from ketwork.networks.collapse.curve_run import collapse_curve
    from ketwork.networks.collapse.projections import Positions
    from ketwork.networks.collapse.run import collapse
    from ketwork.networks.comparison.result import Comparison
    from ketwork.networks.comparison.run import ComparisonError, ComparisonInterrupted, compare
    from ketwork.networks.compression.loader import load_compressed
    from ketwork.networks.compression.result import Compressed
    from ketwork.networks.compression.run import compress
    from ketwork.networks.measures.estimator import Probe, ProbeRegressor, probe
    from ketwork.networks.runtime.checkpoints import CheckpointError
    from ketwork.networks.runtime.distributed import Distributed, ProcessError
    from ketwork.networks.study.layer import Layer
    from ketwork.networks.study.result import Study
    from ketwork.networks.study.run import StudyError, StudyInterrupted, study
    from ketwork.quantum import *  # noqa: F403
    from ketwork.records.checkpoint import Checkpoint
    from ketwork.report.plots import plot_comparison, plot_spectrum, plot_study

_HOMES = {
    "networks.activations.captures": ("capture",),
    "networks.activations.encoding": ("decode", "encode"),
    "networks.activations.reading": ("Reading",),
    "networks.activations.selectors": ("SelectorError",),
    "networks.collapse.curve": ("CollapseCurve",),
    "networks.collapse.curve_run": ("collapse_curve",),
    "networks.collapse.projections": ("Positions",),
    "networks.collapse.run": ("collapse",),
    "networks.comparison.result": ("Comparison",),
    "networks.comparison.run": ("ComparisonError", "ComparisonInterrupted", "compare"),
    "networks.compression.loader": ("load_compressed",),
    "networks.compression.result": ("Compressed",),
    "networks.compression.run": ("compress",),
    "networks.measures.estimator": ("Probe", "ProbeRegressor", "probe"),
    "networks.runtime.checkpoints": ("CheckpointError",),
    "networks.runtime.distributed": ("Distributed", "ProcessError"),
    "networks.study.layer": ("Layer",),
    "networks.study.result": ("Study",),
    "networks.study.run": ("StudyError", "StudyInterrupted", "study"),
    "quantum": (
        "Density",
        "Ensemble",
        "Estimate",
        "Ket",
        "Measurement",
        "State",
        "bures_angle",
        "bures_distance",
        "coherence",
        "effective_rank",
        "entropy",
        "fidelity",
        "from_qutip",
        "holevo",
        "jensen_shannon",
        "mutual_information",
        "negativity",
        "overlap",
        "participation_ratio",
        "purity",
        "random_density",
        "random_ket",
        "random_unitary",
        "relative_entropy",
        "root_fidelity",
        "shannon_entropy",
        "to_qutip",
        "trace_distance",
    ),
    "records.checkpoint": ("Checkpoint",),
    "report.plots": ("plot_comparison", "plot_spectrum", "plot_study"),
}
"""Where each public name lives."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("quantum", "waves")

__all__ = ["__version__", *_PACKAGES, *_HOME_OF]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name in _PACKAGES:
        return import_module(f"ketwork.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ketwork' has no attribute {name!r}")
    value = getattr(import_module(f"ketwork.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
