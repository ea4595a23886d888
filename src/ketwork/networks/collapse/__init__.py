"""`collapse`: layers are measured while the network runs; `collapse_curve`: how many eigenstates each needs.

May import `study` and everything below it. Others take `CollapseCurve`, the metric against rank.

- `run` (`collapse`) and `projections` (what a layer is measured in); `curve_run` (`collapse_curve`), `metrics`, `curve`
"""

from ketwork.networks.collapse.curve import CollapseCurve, LayerCurve
from ketwork.networks.collapse.curve_run import collapse_curve
from ketwork.networks.collapse.projections import Positions
from ketwork.networks.collapse.run import collapse

__all__ = [
    "CollapseCurve",
    "LayerCurve",
    "Positions",
    "collapse",
    "collapse_curve",
]
