"""Numbers of layers with standard errors and bounds, from moments.

One file is one family of measures: spectral, coherence, activity, positions, holevo, probes; and those of pairs of
layers, similarity. A new family is a new file here, which is found by itself (docs/contributing.md has two examples).
Imports `activations`, `moments`, `quantum`, `records`. Others take the registry (`MEASURES`, `Measure`) and the states
that measures are computed from (`LayerState`, `LabelState`).
"""

from importlib import import_module
from pkgutil import iter_modules

_ORDER = ("spectral", "coherence", "activity", "positions", "holevo", "probes")
"""The families in the order of their columns; others follow in the order of their names."""

_LATER = ("estimator",)  # imports scikit-learn, which takes longer than all else

for _name in (*_ORDER, *sorted(module.name for module in iter_modules(__path__))):
    if _name not in _LATER:
        import_module(f"{__name__}.{_name}")
