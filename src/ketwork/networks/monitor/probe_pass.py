"""One pass of a network over the probe set: what its layers put out, gathered as a study does, and their quantities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ketwork.networks.activations import (
    Activation,
    Forward,
    Key,
    Labels,
    Layers,
    RefusedError,
    Seen,
    capture,
    device_of,
    needs_labels,
    select,
)
from ketwork.networks.moments import Keep, Positions, sample_rows
from ketwork.networks.monitor.firing import Firing
from ketwork.networks.monitor.look import LayerLook
from ketwork.networks.monitor.parameters import Parameters
from ketwork.networks.monitor.probe_set import ProbeSet
from ketwork.networks.monitor.quantities import Gathered, Quantity
from ketwork.networks.monitor.views import Views
from ketwork.networks.study import Gathering, Loop, StudyAccumulator
from ketwork.quantum import Estimate, generator_from

WIDEST = 4096
"""The most features of a layer that is followed without being named: sums of a layer grow with their square."""


@dataclass
class ProbePass:
    """Runs a network on the probe set. What the first pass finds of the axes of outputs is kept for the next ones.

    `views` is how many views of a sample stand next to each other, None where each sample stands alone; `held_out` is
    a pass over samples that the network is not trained on.
    """

    network: nn.Module
    probe: ProbeSet
    layers: Layers
    quantities: Sequence[Quantity]
    forward: Forward | None
    seed: int
    views: int | None = None
    held_out: ProbePass | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _known: Seen | None = None
    _rows: dict[Key, list[torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chosen = main_layers(self.network) if self.layers is None else self.layers
        self.parameters = Parameters(self.network, self.seed)
        names = {each.name for each in self.quantities}
        self._turns = "parameter_change" in names
        self._keep = Keep(skip_bad=True, sums={"dead": Firing} if "dead" in names else {})
        self._labelled = any(each.needs in ("classes", "values", "held_out") for each in self.quantities)

    def __call__(self) -> list[LayerLook]:
        """The layers in order of execution, each with its quantities.

        Cost: the forward pass, O(d²) a vector and layer, O(d³) a layer; the first pass runs a few samples again.
        """
        unseen = {} if self.held_out is None else {each.key: each.values for each in self.held_out()}
        probe = self.probe
        labels = Labels(probe.labels if self._labelled else False)
        gathered = StudyAccumulator("state", labels=labels)
        run = Gathering(gathered, generator_from(self.seed), self._keep, probe.mask is not None)
        self._rows.clear()
        with capture(self.network, self.chosen, receive=lambda each: self._receive(run, each)) as live:
            if self._known is not None:
                live.restore(self._known)
            key = probe.labels if isinstance(probe.labels, str) else None
            loop = Loop(run, live, None, forward=self.forward, label_key=key)
            for batch in probe.batches(device_of(self.network), needs_labels(self.network)):
                loop.take(batch)
            loop.end(limited=False)
            result = run.finished(live)
            views = {named[0]: self._rows[key] for key, named in live.names(self._rows).items()}
            if self._known is None and not any(row.dropped for row in result.rows):
                self._known = live.seen()
        self.skipped, self.notes = result.skipped, [*result.notes, *result.labels.notes]
        followed = [row.info.name for row in result.rows] if self._turns else []
        changes = self.parameters.changes(followed)
        task, names = result.labels.task, tuple(result.labels.names)
        looks = []
        for row in result.rows:
            info = row.info
            change = changes.get(info.name, Estimate())
            data = Gathered(row, names, change, self._views(views.get(info.key)), unseen.get(info.key))
            values = {each.name: each(data) for each in self.quantities if _exists(each, data, task)}
            looks.append(LayerLook(info.name, info.call, info.kind, row.d, row.samples, row.dropped, values))
        self._rows.clear()
        return looks

    def _receive(self, run: Gathering, activation: Activation) -> None:
        d = activation.values.shape[-1]
        if self.layers is None and d > WIDEST:
            raise RefusedError(
                f"it has {d:,} features, more than {WIDEST:,}: name it in `layers` to follow it"
            )
        run.receive(activation)
        if self.views is not None:
            positions = Positions.of(activation.values, activation.present)
            rows = sample_rows(activation.values, positions, normalize="ensemble")
            self._rows.setdefault(activation.key, []).append(rows)

    def _views(self, rows: list[torch.Tensor] | None) -> Views | None:
        return None if rows is None or self.views is None else Views(torch.cat(rows), self.views)


def main_layers(network: nn.Module) -> list[str]:
    """The layers that are followed by default: the main layers, of repeated blocks their outputs alone.

    >>> layer = nn.TransformerEncoderLayer(4, 2, batch_first=True)
    >>> main_layers(nn.Sequential(nn.Linear(3, 4), nn.TransformerEncoder(layer, 2)))
    ['(model)', '0', '1', '1.layers.0', '1.layers.1']
    """
    selection = select(network)
    inside = tuple(f"{block}." for block in selection.blocks)
    blocks = selection.blocks
    return [name for name in selection.chosen if name in blocks or not name.startswith(inside)]


def _exists(quantity: Quantity, row: Gathered, task: str | None) -> bool:
    """Whether the probe set has what a quantity needs at a layer."""
    match quantity.needs:
        case "positions":
            return row.accumulator.entanglements is not None
        case "classes":
            return row.accumulator.labelled is not None and task in ("classes", "positions")
        case "values":
            return row.accumulator.labelled is not None and task == "values"
        case "views":
            return row.views is not None
        case "held_out":
            return bool(row.unseen) and row.accumulator.labelled is not None
        case _:
            return True
