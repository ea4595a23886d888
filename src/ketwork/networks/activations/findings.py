"""`Findings`: what experiments have shown of a network's outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

from ketwork.networks.activations.info import Key
from ketwork.networks.activations.layout import Layout


@dataclass
class Findings:
    """What experiments have shown: each output's layout, or why it has none, by key and place in the output.

    Of a module's outputs, the states that recurrent layers return beside theirs come last.
    `masks` has the name of the mask that belongs to a layer, where there are several towers; `passes` counts the
    forward passes, `notes` say what is out of the ordinary.
    """

    layouts: dict[Key, dict[str, Layout | str]] = field(default_factory=dict)
    masks: dict[Key, str | None] = field(default_factory=dict)
    passes: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of the layers of which an experiment has settled the samples' axis."""
        settled = [
            any(isinstance(each, Layout) and each.samples_by == "experiment" for each in layouts.values())
            for layouts in self.layouts.values()
        ]
        return sum(settled) / len(settled) if settled else 0.0
