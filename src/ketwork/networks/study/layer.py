"""One row of a study: a layer at one of its calls, with its state, its numbers and what it knows of labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ketwork.networks.measures import readings
from ketwork.networks.measures.knowledge import Knowledge
from ketwork.networks.measures.quantities import QUANTITIES
from ketwork.networks.measures.readings import PACKED, pack, unpack
from ketwork.networks.moments.accumulator import NORMALIZATIONS, LayerStatistics
from ketwork.quantum import Density, Estimate
from ketwork.records import storage
from ketwork.records.checked import check

NONE = Estimate(math.nan)
"""What stands for a quantity that a layer has not."""

_KNOWN = "knowledge."
_NAMES = tuple(quantity.name for quantity in QUANTITIES)
_ROW = {
    "name": str,
    "call": int,
    "kind": str,
    "aliases": [str],
    "leaf": str,
    "axis": int,
    "normalize": NORMALIZATIONS,
    "center": bool,
    "statistics": dict,
    "estimates": PACKED,
    "knowledge": (dict, None),
}


@dataclass(frozen=True)
class Layer:
    """One row of a study: a layer at one of its calls.

    `aliases` names the other modules that returned this very tensor; `leaf` is where in the module's output
    it stood, `axis` the axis its features were on. `estimates` maps each quantity to value and standard error.
    """

    name: str
    call: int
    kind: str
    aliases: tuple[str, ...]
    leaf: str
    axis: int
    statistics: LayerStatistics
    normalize: str
    center: bool
    estimates: dict[str, Estimate]
    knowledge: Knowledge | None = None

    @property
    def d(self) -> int:
        """The number of features."""
        return self.statistics.d

    @property
    def N(self) -> int:
        """The number of samples."""
        return self.statistics.samples

    @property
    def kets(self) -> int:
        """The number of kets: positions of samples."""
        return self.statistics.kets

    @property
    def sketch(self) -> int | None:
        """The rank ℓ of the sketch that stands for the layer's moment, None where that is exact."""
        sketch = self.statistics.moment.sketch
        return sketch.rank if sketch is not None else None

    @property
    def sketch_error(self) -> float:
        """The most by which what the sketch keeps of ρ falls short of ρ in any direction (certified); 0 where exact."""
        return readings.slack(self.statistics, self.center)

    @property
    def all_estimates(self) -> dict[str, Estimate]:
        """The quantities of the layer and, with labels, of what it knows of them."""
        return self.estimates | (self.knowledge.estimates if self.knowledge else {})

    @cached_property
    def density(self) -> Density:
        """The layer's state ρ, in float64, with eigenstates, measures and measurements of its own.

        Where a memory budget made the moment a `sketch`, the state of what that keeps, which `sketch_error` bounds; the
        layer's own numbers have intervals then, this state's measures have none.

        Raises:
            ValueError: the layer has no state, since each activation was a zero vector (or all equal, centred).
        """
        rho = readings.density(self.statistics, self.center)
        if rho is None:
            raise ValueError(
                f"Layer {self.name!r} has no state: its activations are all zero, or all equal and centred."
            )
        return rho

    def header(self) -> dict[str, Any]:
        """All of the row but its tensors, for a file."""
        return {
            "name": self.name,
            "call": self.call,
            "kind": self.kind,
            "aliases": list(self.aliases),
            "leaf": self.leaf,
            "axis": self.axis,
            "normalize": self.normalize,
            "center": self.center,
            "statistics": self.statistics.header(),
            "estimates": pack(self.estimates),
            "knowledge": self.knowledge.header() if self.knowledge else None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The row's tensors, for a file."""
        known = self.knowledge.tensors() if self.knowledge else {}
        return self.statistics.tensors() | {f"{_KNOWN}{name}": tensor for name, tensor in known.items()}

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Layer:
        """The row that `header` and its statistics' tensors described."""
        check(header, _ROW, "layer")
        plain = {
            name: header[name] for name in ("name", "call", "kind", "leaf", "axis", "normalize", "center")
        }
        statistics = LayerStatistics.from_header(header["statistics"], tensors)
        known = None
        if header["knowledge"]:
            known = Knowledge.from_header(header["knowledge"], storage.under(_KNOWN, tensors))
        return cls(
            **plain,
            aliases=tuple(header["aliases"]),
            statistics=statistics,
            estimates=dict.fromkeys(_NAMES, NONE) | unpack(header["estimates"]),
            knowledge=known,
        )

    def __getattr__(self, name: str) -> Estimate:
        if "estimates" not in self.__dict__:  # while the object is being made or copied
            raise AttributeError(name)
        found = self.all_estimates
        if name in found:
            return found[name]
        raise AttributeError(f"Layer has no {name!r}; its quantities are {', '.join(found)}.")

    def __repr__(self) -> str:
        call = f", call {self.call}" if self.call else ""
        return (
            f"Layer({self.name!r}{call}, {self.kind}, d={self.d}, N={self.N}: "
            f"S = {self.estimates['entropy']} bits, effective rank {self.estimates['effective_rank']})"
        )
