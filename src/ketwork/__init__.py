"""ketwork (ket + network): neural networks and quantum mechanics, linked by exact mathematics.

*Network to quantum*: `study` reads any trained PyTorch network as a quantum system, in one pass over data;
`compare` says how alike every pair of layers is, within a model or between two; `compress` makes a network smaller
without training; `probe` reads labels from arrays.
*The toolbox underneath*: `Ket`, `Density`, `Measurement` and information measures, useful alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ketwork._version import __version__ as __version__
from ketwork.networks import (
    CheckpointError,
    CollapseCurve,
    Comparison,
    Compressed,
    Estimate,
    Layer,
    Positions,
    ProcessError,
    SelectorError,
    Study,
    StudyInterrupted,
    capture,
    collapse,
    collapse_curve,
    compare,
    compress,
    decode,
    encode,
    load_compressed,
    study,
)
from ketwork.quantum import *  # noqa: F403  the quantum room's public names are ketwork's
from ketwork.quantum import __all__ as _quantum
from ketwork.report import plot_comparison, plot_spectrum, plot_study

if TYPE_CHECKING:
    from ketwork.networks.probe import Probe, ProbeRegressor, probe

__all__ = [
    *_quantum,
    "CheckpointError",
    "CollapseCurve",
    "Comparison",
    "Compressed",
    "Estimate",
    "Layer",
    "Positions",
    "Probe",
    "ProbeRegressor",
    "ProcessError",
    "SelectorError",
    "Study",
    "StudyInterrupted",
    "capture",
    "collapse",
    "collapse_curve",
    "compare",
    "compress",
    "decode",
    "encode",
    "load_compressed",
    "probe",
    "plot_comparison",
    "plot_spectrum",
    "plot_study",
    "study",
]


def __getattr__(name: str) -> Any:
    """The probe, imported when it is first asked for: scikit-learn takes longer to import than all the rest."""
    if name in ("Probe", "ProbeRegressor", "probe"):
        return getattr(import_module("ketwork.networks.probe"), name)
    raise AttributeError(f"module 'ketwork' has no attribute {name!r}")
