"""What a look at a network gives: each layer's quantities at a step, and the alarms that they raised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ketwork.quantum import Estimate

Key = tuple[str, int]


@dataclass(frozen=True)
class LayerLook:
    """A layer at one of its calls: its quantities by name, of `samples` samples; `bad` more had NaN or infinity."""

    layer: str
    call: int
    kind: str
    d: int
    samples: int
    bad: int
    values: Mapping[str, Estimate]

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.layer, self.call

    @property
    def label(self) -> str:
        """Its name, with the number of the call where it is not the first."""
        return self.layer if self.call <= 0 else f"{self.layer} (call {self.call + 1})"


@dataclass(frozen=True)
class Alarm:
    """A change of a layer beyond sampling noise that a rule looks for.

    `quantity` was `before` at the step `since`, and is `after` at `step`; `others` are the other layers of which the
    rule found the same at that step.
    """

    kind: str
    title: str
    step: int
    layer: str
    quantity: str
    since: int
    before: Estimate
    after: Estimate
    others: tuple[str, ...] = ()
    meaning: str = ""
    remedy: str = ""

    @property
    def change(self) -> str:
        """Before → after, each ± its standard error."""
        return f"{self.before} → {self.after}"

    def __str__(self) -> str:
        more = (
            f" and {len(self.others)} more layer{'s' if len(self.others) > 1 else ''}" if self.others else ""
        )
        name = self.quantity.replace("_", " ")
        return (
            f"{self.title} at {self.layer}{more}, step {self.step:,}: {name} {self.change} since step {self.since:,}. "
            f"{self.meaning} {self.remedy}"
        ).rstrip()


@dataclass(frozen=True)
class Look:
    """All layers at one step, in order of execution, the seconds that the look took, and the alarms that it raised."""

    step: int
    seconds: float
    layers: tuple[LayerLook, ...]
    alarms: tuple[Alarm, ...] = ()

    def value(self, layer: str, quantity: str, call: int = 0) -> Estimate:
        """A quantity of a layer; NaN where it does not have it.

        Raises:
            KeyError: there is no such layer.
        """
        for each in self.layers:
            if each.key == (layer, call):
                return each.values.get(quantity, Estimate())
        names = ", ".join(each.label for each in self.layers[:6])
        raise KeyError(f"No layer {layer!r} in this look; it has {names}.")


def beyond(before: Estimate, after: Estimate, errors: float) -> bool:
    """Whether two values differ by more than so many of their joint standard errors; an unknown error counts as 0."""
    noise = math.hypot(*(each.stderr if math.isfinite(each.stderr) else 0.0 for each in (before, after)))
    return abs(after.value - before.value) > errors * noise
