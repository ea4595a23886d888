"""Models and data as a command line names them: files, folders and factories."""

from ketwork.sources.arrays import from_arrays
from ketwork.sources.batches import LoadedData
from ketwork.sources.data import load_data
from ketwork.sources.errors import SourceError, SourceFailed
from ketwork.sources.models import LoadedModel, load_model

__all__ = [
    "LoadedData",
    "LoadedModel",
    "SourceError",
    "SourceFailed",
    "from_arrays",
    "load_data",
    "load_model",
]
