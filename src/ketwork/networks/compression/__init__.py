"""Networks made smaller: what their states do not hold is cut, without training."""

from ketwork.networks.compression.compress import compress
from ketwork.networks.compression.loader import load_compressed
from ketwork.networks.compression.record import Compressed

__all__ = ["Compressed", "compress", "load_compressed"]
