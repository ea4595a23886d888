"""Models and data as a command line names them: files, folders and factories.

May import `quantum`, `records` and `_draws`. Others take `LoadedData` and `LoadedModel`.
"""

from ketwork.sources.arrays import from_arrays
from ketwork.sources.batches import LoadedData
from ketwork.sources.data import load_data
from ketwork.sources.errors import SourceError, SourceFailed
from ketwork.sources.factories import call, parse, resolve
from ketwork.sources.models import LoadedModel, load_model

__all__ = [
    "LoadedData",
    "LoadedModel",
    "SourceError",
    "SourceFailed",
    "call",
    "from_arrays",
    "load_data",
    "load_model",
    "parse",
    "resolve",
]
