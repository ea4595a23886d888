"""Networks made smaller: what their states do not hold is cut, without training."""

from ketwork.networks.compression.loader import load_compressed
from ketwork.networks.compression.result import Compressed
from ketwork.networks.compression.run import compress

__all__ = ["Compressed", "compress", "load_compressed"]
