"""The registry of measures: a measure is one declaration, from which tables, records, pages, plots and docs follow.

A family of measures is a file of this package. `measure` declares one of a layer:

    @measure("stable_rank", title="stable rank", unit="dimensions", definition="1/λ₁, with λ₁ the largest …")
    def stable_rank(state: LayerState) -> Estimate: ...

The function gets the layer's `LayerState` (of measures of labels its `Decoding`), and gives an `Estimate`: the value,
its standard error, the `plain` value where the first is corrected for finite data, and its bounds where the layer is a
sketch. A measure that needs a sum of its own declares that too
(`sums=`, a `LayerSum`) and finds it in `state.accumulator.sums` by its name.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ketwork.networks.moments import LayerSum
from ketwork.quantum import Estimate

Needs = Literal["layer", "classes", "values"]
"""What a measure is of: every layer, or one with labels that are classes, or numbers."""


@dataclass(frozen=True)
class Column:
    """How a measure stands in a table: `header` over `unit`; the lower its `rank`, the narrower a table has it.

    It is shown only where the measure that it stands `beside` is, and with `nonzero` where a layer has more than 0.
    """

    header: str
    unit: str = ""
    rank: int = 20
    page: bool = True
    beside: str = ""
    nonzero: bool = False

    def tells(self, values: Sequence[float]) -> bool:
        """Whether there is anything to show of these layers' values."""
        return any(value > 0 for value in values) if self.nonzero else not all(map(math.isnan, values))


@dataclass(frozen=True)
class Measure:
    """One number of a layer.

    `needs` says what it is of; `show` how it is printed: as a number, in per cent, or as a count; `stderr` whether it
    has a standard error; `reading` what is good or bad about it, and what it may mislead about. `option` is the
    argument of `study` that asks for it, "" where every study has it: then `sums` are not of vectors alone.
    """

    name: str
    title: str
    unit: str
    definition: str
    compute: Callable[[Any], Estimate]
    needs: Needs = "layer"
    sums: type[LayerSum] | None = None
    option: str = ""
    show: Literal["number", "percent", "count"] = "number"
    stderr: bool = True
    column: Column | None = None
    reading: str = ""

    @property
    def sentence(self) -> str:
        """The definition with its unit."""
        return f"{self.definition} [{self.unit}]" if self.unit else self.definition

    def __call__(self, state: Any) -> Estimate:
        """The measure of a layer, in its unit; NaN where the sum of its own is missing, as in older records."""
        if self.sums is not None and self.name not in state.accumulator.sums:
            return Estimate(unit=self.unit)
        value = state.shared(self.compute)
        return Estimate(value.value, value.stderr, value.bounds, self.unit, plain=value.plain)


class Registry(dict[str, Measure]):
    """Measures by name, in the order of their columns."""

    def arrange(self, families: Sequence[str]) -> None:
        """Puts the measures of these files first, in this order; the others follow as they were declared."""

        def place(measure: Measure) -> int:
            family = measure.compute.__module__.rpartition(".")[2]
            return families.index(family) if family in families else len(families)

        arranged = sorted(self.items(), key=lambda item: place(item[1]))
        self.clear()
        self.update(arranged)


MEASURES = Registry()
"""All measures of layers by name, in the order of their columns."""


def measure(
    name: str, *, title: str, unit: str = "", definition: str, **declared: Any
) -> Callable[[Callable[[Any], Estimate]], Measure]:
    """Declares the decorated function as a measure; see `Measure` for what else can be said of it.

    Raises:
        ValueError: there is a measure of that name.
    """

    def declare(compute: Callable[[Any], Estimate]) -> Measure:
        if name in MEASURES:
            raise ValueError(f"Argument `name` must be new, but there is a measure {name!r}.")
        MEASURES[name] = Measure(name, title, unit, definition, compute, **declared)
        return MEASURES[name]

    return declare


def measures_of(task: str | None = None) -> tuple[Measure, ...]:
    """The measures of a layer with labels of that kind (None: no labels)."""
    wanted = {"layer", {None: "layer", "values": "values"}.get(task, "classes")}
    return tuple(each for each in MEASURES.values() if each.needs in wanted)


def own_sums() -> dict[str, type[LayerSum]]:
    """The sums that measures declare of their own and that are of a layer's vectors, by the names of the measures."""
    return {each.name: each.sums for each in MEASURES.values() if each.sums is not None and not each.option}


def in_html(head: str, estimates: Mapping[str, Estimate]) -> str:
    """The numbers that exist as a table for notebooks, under a line of text."""
    rows = "".join(
        f"<tr><th title='{html.escape(MEASURES[name].sentence)}'>{html.escape(MEASURES[name].title)}</th>"
        f"<td>{html.escape(str(value))}</td></tr>"
        for name, value in estimates.items()
        if not math.isnan(value)
    )
    return f"<p>{html.escape(head)}</p><table>{rows}</table>"
