"""`compare`: how alike every pair of layers is, within a model or between two.

May import `runtime` and everything below it. Others take `Comparison`, its matrices.

- The pass: `run` (`compare`), `sides` (layers of two models), `accumulator`; its end: `ending`, `effort` (time),
  `warnings`
- The record: `result` (`Comparison`), `tables`, `upgrade` (of version 0.1)
"""

from ketwork.networks.comparison.result import FEWEST, ComparedLayer, Comparison
from ketwork.networks.comparison.run import ComparisonError, ComparisonInterrupted, compare
from ketwork.networks.comparison.upgrade import upgraded_comparison
from ketwork.networks.comparison.weights import WeightChange

__all__ = [
    "FEWEST",
    "ComparedLayer",
    "Comparison",
    "ComparisonError",
    "ComparisonInterrupted",
    "WeightChange",
    "compare",
    "upgraded_comparison",
]
