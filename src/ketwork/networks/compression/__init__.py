"""`compress`: networks made smaller without training, by what their states do not hold.

May import `study` and everything below it. Others take `Compressed`, the smaller network with its record.
"""

from ketwork.networks.compression.loader import load_compressed
from ketwork.networks.compression.result import Compressed
from ketwork.networks.compression.run import compress

__all__ = [
    "Compressed",
    "compress",
    "load_compressed",
]
