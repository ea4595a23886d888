"""ketwork (ket + network): neural networks and quantum mechanics, linked by exact mathematics.

*Network to quantum*: `study` reads any trained PyTorch network as a quantum system, in one pass over data;
`compare` says how alike every pair of layers is, within a model or between two.
*The toolbox underneath*: `Ket`, `Density`, `Measurement` and information measures, useful alone.
"""

from ketwork.networks import (
    Comparison,
    Estimate,
    Layer,
    SelectorError,
    Study,
    StudyInterrupted,
    capture,
    compare,
    decode,
    encode,
    study,
)
from ketwork.quantum import *  # noqa: F403  the quantum room's public names are ketwork's
from ketwork.quantum import __all__ as _quantum

__version__ = "0.1.0"

__all__ = [
    *_quantum,
    "Comparison",
    "Estimate",
    "Layer",
    "SelectorError",
    "Study",
    "StudyInterrupted",
    "capture",
    "compare",
    "decode",
    "encode",
    "study",
]
