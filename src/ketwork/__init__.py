"""ketwork (ket + network): neural networks and quantum mechanics, linked by exact mathematics.

*Network to quantum*: `study` reads any trained PyTorch network as a quantum system, in one pass over data;
`compare` says how alike every pair of layers is, within a model or between two; `collapse` measures layers while the
network runs; `Study.detector` finds inputs unlike the data studied; `compress` makes a network smaller without
training; `probe` reads labels from arrays; `Monitor` watches a training run.
*Quantum to network*: `waves` has neural wave functions and finds ground states with them.
*The toolbox underneath*: `Ket`, `Density`, `Measurement` and information measures, useful alone.

Everything is imported when it is first used: `import ketwork.quantum` loads torch and numpy alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ketwork._version import __version__ as __version__

if TYPE_CHECKING:
    from ketwork import circuits as circuits
    from ketwork import waves as waves
    from ketwork.networks.activations import Reading, SelectorError, capture, decode, encode, generate
    from ketwork.networks.collapse import CollapseCurve, Positions, collapse, collapse_curve
    from ketwork.networks.comparison import Comparison, ComparisonError, ComparisonInterrupted, compare
    from ketwork.networks.compression import Compressed, compress, load_compressed
    from ketwork.networks.detection import DetectionError, DetectionInterrupted, Detector
    from ketwork.networks.measures import Probe, ProbeRegressor, probe
    from ketwork.networks.monitor import Monitor, MonitorRun, MonitorWarning, StopTraining
    from ketwork.networks.runtime import CheckpointError, Distributed, ProcessError
    from ketwork.networks.study import Layer, Study, StudyError, StudyInterrupted, study, study_activations
    from ketwork.quantum import (
        Density,
        Ensemble,
        Estimate,
        Ket,
        Measurement,
        State,
        bures_angle,
        bures_distance,
        coherence,
        effective_rank,
        entropy,
        fidelity,
        from_qutip,
        holevo,
        jensen_shannon,
        mutual_information,
        negativity,
        overlap,
        participation_ratio,
        purity,
        random_density,
        random_ket,
        random_unitary,
        relative_entropy,
        root_fidelity,
        shannon_entropy,
        to_qutip,
        trace_distance,
    )
    from ketwork.records import Checkpoint
    from ketwork.report import plot_comparison, plot_spectrum, plot_study

_HOMES = {
    "networks.activations": ("Reading", "SelectorError", "capture", "decode", "encode", "generate"),
    "networks.collapse": ("CollapseCurve", "Positions", "collapse", "collapse_curve"),
    "networks.comparison": ("Comparison", "ComparisonError", "ComparisonInterrupted", "compare"),
    "networks.compression": ("Compressed", "compress", "load_compressed"),
    "networks.detection": ("DetectionError", "DetectionInterrupted", "Detector"),
    "networks.measures": ("Probe", "ProbeRegressor", "probe"),
    "networks.monitor": ("Monitor", "MonitorRun", "MonitorWarning", "StopTraining"),
    "networks.runtime": ("CheckpointError", "Distributed", "ProcessError"),
    "networks.study": ("Layer", "Study", "StudyError", "StudyInterrupted", "study", "study_activations"),
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
    "records": ("Checkpoint",),
    "report": ("plot_comparison", "plot_spectrum", "plot_study"),
}
"""Where each public name lives."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("circuits", "quantum", "waves")

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
