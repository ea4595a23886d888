"""ketwork (ket + network): neural networks and quantum mechanics, linked by exact mathematics.

*Network to quantum*: `study` reads any trained PyTorch network as a quantum system, in one pass over data;
`compare` says how alike every pair of layers is, within a model or between two; `compress` makes a network smaller
without training; `probe` reads labels from arrays.
*The toolbox underneath*: `Ket`, `Density`, `Measurement` and information measures, useful alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ketwork._version import __version__ as __version__
from ketwork.networks.activations.captures import capture
from ketwork.networks.activations.encoding import decode, encode
from ketwork.networks.activations.selectors import SelectorError
from ketwork.networks.collapse.curve import collapse_curve
from ketwork.networks.collapse.curve_result import CollapseCurve
from ketwork.networks.collapse.projections import Positions
from ketwork.networks.collapse.run import collapse
from ketwork.networks.comparison.result import Comparison
from ketwork.networks.comparison.run import compare
from ketwork.networks.compression.loader import load_compressed
from ketwork.networks.compression.result import Compressed
from ketwork.networks.compression.run import compress
from ketwork.networks.runtime.checkpoints import CheckpointError
from ketwork.networks.runtime.distributed import ProcessError
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.result import Study
from ketwork.networks.study.run import StudyInterrupted, study
from ketwork.quantum import *  # noqa: F403  the quantum room's public names are ketwork's
from ketwork.quantum import Estimate
from ketwork.quantum import __all__ as _quantum
from ketwork.report import plot_comparison, plot_spectrum, plot_study

if TYPE_CHECKING:
    from ketwork.networks.measures.estimator import Probe, ProbeRegressor, probe

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
        return getattr(import_module("ketwork.networks.measures.estimator"), name)
    raise AttributeError(f"module 'ketwork' has no attribute {name!r}")
