"""`DecodedLabels`: what can be decoded from a layer: Holevo bits with their chance level, and two scored readouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.measures import holevo, probes
from ketwork.networks.measures.label_counts import LabelCounts
from ketwork.networks.measures.label_state import LabelState
from ketwork.networks.measures.registry import measures_of
from ketwork.networks.moments import LabelledMoments
from ketwork.quantum import Density, Ensemble, Estimate, Measurement
from ketwork.records import Malformed

_FEW = 10
"""Samples of a label, below which little is known of it."""


@dataclass(frozen=True)
class Decoding:
    """What readouts gave beside their scores: counts (label, label read) and chosen regularisation, by readout.

    `discarded` is the share of the vectors' weight that no label keeps as its own.
    """

    confusion: dict[str, Tensor] = field(default_factory=dict)
    strengths: dict[str, float] = field(default_factory=dict)
    discarded: float = 0.0

    @classmethod
    def from_state(cls, state: LabelState) -> Decoding:
        """What the layer's readouts gave."""
        readings = state.shared(probes.readings)
        strengths = {kind: readout.strength for kind, readout in readings.readouts.items()}
        return cls(readings.confusion, strengths, state.moments.discarded)

    def check(self) -> None:
        """Confusion is square counts of known readouts."""
        for kind, counts in self.confusion.items():
            square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] and counts.dtype == torch.int64
            if kind not in probes.KINDS or not square or bool((counts < 0).any()):
                raise Malformed(f"the confusion of {kind!r} must be square counts")


@dataclass(frozen=True, repr=False)
class DecodedLabels:
    """What one layer tells of the labels: `estimates` by measure, `confusion` counts (label, label read) by readout.

    `names` are the labels; `strengths` the regularisation that was chosen on the fitting part; `discarded`
    the share of the vectors' weight that no label keeps as its own (0 unless labels and features are many).
    """

    names: tuple[Any, ...]
    moments: LabelledMoments | LabelCounts
    estimates: dict[str, Estimate]
    decoding: Decoding

    @classmethod
    def from_moments(cls, moments: LabelledMoments, names: tuple[Any, ...]) -> DecodedLabels:
        """Solves and scores the readouts of one layer. Cost O(d³) and a few products of size rows × q × samples."""
        state = LabelState(moments, names)
        task = "values" if state.numbers else "classes"
        estimates = {each.name: each(state) for each in measures_of(task) if each.needs == task}
        return cls(names, moments, estimates, Decoding.from_state(state))

    @property
    def confusion(self) -> dict[str, Tensor]:
        """Counts (label, label read) on held-out samples, by readout."""
        return self.decoding.confusion

    @property
    def strengths(self) -> dict[str, float]:
        """The chosen regularisation, by readout."""
        return self.decoding.strengths

    @property
    def discarded(self) -> float:
        """The share of the vectors' weight that no label keeps as its own."""
        return self.decoding.discarded

    @property
    def held_out(self) -> Tensor:
        """Indices in the data of the samples that the readouts were scored on, which no fit has seen."""
        return self.moments.held.samples.unique()

    @property
    def held_counts(self) -> dict[Any, int]:
        """How many pooled vectors of each label the scores are of, held out, by label."""
        held = self.moments.held.codes
        return dict(zip(self.names, torch.bincount(held, minlength=len(self.names)).tolist(), strict=False))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many pooled vectors of each label the fitting part holds, in the order of `names`."""
        return tuple(int(count) for count in self.moments.counts(len(self.names)))

    @property
    def labels(self) -> tuple[Any, ...]:
        """The labels that the fitting part holds, in the order of `names`."""
        return tuple(name for name, count in zip(self.names, self.counts, strict=False) if count)

    def state(self, label: Any) -> Density:
        """The state of a label: ρ = (1/n) Σ |ψ⟩⟨ψ| over the fitting part's pooled vectors that have it.

        Where there are many labels of many features, of the part that the label keeps as its own; see
        `discarded`.
        """
        return self._states([label])[0]

    def states(self) -> dict[Any, Density]:
        """The state of each of `labels`; see `state`."""
        return dict(zip(self.labels, self._states(list(self.labels)), strict=True))

    def ensemble(self) -> Ensemble:
        """The states of `labels` with their frequencies in the fitting part."""
        counts = torch.tensor([count for count in self.counts if count], dtype=torch.float64)
        return Ensemble(counts / counts.sum(), self._states(list(self.labels)))

    def helstrom(self, a: Any, b: Any) -> float:
        """The best success of one measurement of one copy at telling labels a and b, equally likely: ½(1 + D).

        D is the trace distance of the two labels' states (Helstrom 1969). Where labels lost the shares δ of their
        weight (see `discarded`) it lies within (δₐ + δ_b)/2 of that of the complete states. Cost O(d³) at most.
        """
        first, second = self._states([a, b])
        best = Measurement.helstrom(first, second, 0.5)
        return float(best.success(Ensemble([0.5, 0.5], [first, second])))

    @property
    def warnings(self) -> list[str]:
        """What a reader of these numbers should know."""
        if not self.names:
            return []
        if not self.labels:
            return ["No sample has a vector other than zero, so that no label can be decoded."]
        if len(self.labels) < 2:
            return [
                f"The samples to fit have only the label {self.labels[0]!r}: there is nothing to tell apart."
            ]
        messages: list[str] = []
        held = set(self.moments.held.targets.tolist())
        unread = [name for code, name in enumerate(self.names) if code in held and name not in self.labels]
        unseen = [name for name in self.labels if self.names.index(name) not in held]
        few = [f"{name} ({n})" for name, n in zip(self.names, self._totals(), strict=False) if n < _FEW]
        if few:
            more = f" and {len(few) - 6} more" if len(few) > 6 else ""
            messages.append(
                f"Fewer than {_FEW} samples of these labels: {', '.join(few[:6])}{more}. Give more of them."
            )
        if unread:
            messages.append(f"Labels without a sample to fit, which no readout can name: {_listed(unread)}.")
        if unseen:
            messages.append(f"Labels without a held-out sample, which no score counts: {_listed(unseen)}.")
        return messages

    def _totals(self) -> list[int]:
        """The vectors of each label, held-out ones included."""
        return [count + more for count, more in zip(self.counts, self.held_counts.values(), strict=False)]

    def __repr__(self) -> str:
        what = f"{len(self.names)} labels" if self.names else "numbers"
        scores = ", ".join(f"{name} {value}" for name, value in self.estimates.items() if value == value)
        held = f"{len(self.held_out)} samples held out{by_label(self.held_counts)}"
        return f"DecodedLabels({what}, {held}: {scores or 'nothing to tell apart'})"

    def _states(self, labels: list[Any]) -> list[Density]:
        for label in labels:
            if label not in self.labels:
                known = ", ".join(map(str, self.labels))
                raise KeyError(f"No label {label!r} in the fitting part; it has {known}.")
        moments, is_complex = self.moments.fitting().moments, self.moments.complex
        return [holevo.state_of(moments, self.names.index(label), is_complex) for label in labels]


def by_label(counts: Mapping[Any, int], most: int = 6) -> str:
    """Counts by label in words, in brackets; nothing where labels are numbers.

    >>> by_label({"ham": 20, "spam": 3}), by_label({})
    (' (ham: 20, spam: 3)', '')
    """
    if not counts:
        return ""
    named = [f"{name}: {count}" for name, count in counts.items()]
    more = f" and {len(named) - most} more labels" if len(named) > most else ""
    return f" ({', '.join(named[:most])}{more})"


def _listed(names: list[Any], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
