"""`compress`: networks made smaller without training, by what their states do not hold.

May import `study` and everything below it. Others take `Compressed`, the smaller network with its record.

- Before: `calibration` (data), `layers` and `restructuring` (what can be compressed), `unit_discovery`, `survey`,
  `dead` (what the predictions do not depend on)
- How small: `budgets` and `costs` (what counts), `search` (candidates), `allocation` (each layer's form and rank),
  `descent` (the same with units removed), `targets`
- The smaller network: `reductions` and `factors` (one layer), `fits` (all), `unit_removal`, `surgery`; `scratch` keeps
  what takes more memory than it may
- After: `record`, `result`, `loader`, `pretrained`, `onnx_export`,
  `torchao_export`
"""

from ketwork.networks.compression.loader import load_compressed
from ketwork.networks.compression.result import Compressed
from ketwork.networks.compression.run import compress

__all__ = [
    "Compressed",
    "compress",
    "load_compressed",
]
