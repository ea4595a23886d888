"""`Scoring`: a batch's activations become one row of terms a sample, inside the hook; nothing else is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.activations import Activation, Key
from ketwork.networks.detection.references import LABEL_FREE, MEAN, WORST, LayerReference
from ketwork.records import Count, Malformed


@dataclass(frozen=True)
class Term:
    """One score of one layer: `layer` is its place, `method` and `positions` say how it is scored."""

    layer: Count
    method: str
    positions: str = MEAN


@dataclass
class Scoring:
    """The terms of the batch that is on its way, and of those before it.

    A layer whose vector is zero has no ket: its terms are NaN. So are those of NaN or infinite activations, whose
    samples are in `bad`, by layer.
    """

    references: Sequence[LayerReference]
    terms: Sequence[Term]
    parts: list[Tensor] = field(default_factory=list)
    nearest: list[Tensor] = field(default_factory=list)
    bad: dict[str, list[int]] = field(default_factory=dict)
    _batch: dict[int, Tensor] = field(default_factory=dict)
    _classes: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places: dict[Key, int] = {}
        for place, reference in enumerate(self.references):
            self.places[reference.info.key] = place
        self.columns = [
            [column for column, term in enumerate(self.terms) if term.layer == place]
            for place in range(len(self.references))
        ]

    @property
    def samples(self) -> int:
        """How many samples have been scored."""
        return sum(map(len, self.parts))

    @property
    def paths(self) -> list[str]:
        """The modules to listen to."""
        return list(dict.fromkeys(name for name, _ in self.places))

    def begin(self) -> None:
        """A batch begins."""
        self._batch.clear()
        self._classes.clear()
        self.bad.clear()

    def receive(self, activation: Activation) -> None:
        """Scores one layer's activation.

        Raises:
            ValueError: it is not of the layer that was studied.
        """
        place = self.places.get(activation.key)
        if place is None or place in self._batch:
            return
        self._check(self.references[place], activation)
        # A call may run under autocast, in whose precision distances would be noise.
        with torch.no_grad(), torch.autocast(self.references[place].device.type, enabled=False):
            self._score(place, activation)

    def _score(self, place: int, activation: Activation) -> None:
        reference = self.references[place]
        kets, norms = reference.kets(activation)
        here = [self.terms[column] for column in self.columns[place]]
        pooled = tuple(term.method for term in here if term.positions == MEAN)
        scores, nearest = reference.scores(kets, pooled)
        worst: dict[str, Tensor] = {}
        if any(term.positions == WORST for term in here):
            worst = reference.worst(
                activation, tuple(term.method for term in here if term.positions == WORST)
            )
        both = {MEAN: scores, WORST: worst}
        rows = torch.stack([both[term.positions][term.method] for term in here], dim=1).double()
        finite = norms.isfinite()
        if not bool(finite.all()):
            self.bad[reference.info.label] = (~finite).nonzero()[:, 0].tolist()
        usable = finite & (norms > 0)
        rows = torch.where(usable[:, None] & rows.isfinite(), rows, torch.nan)
        self._batch[place] = rows.cpu()
        if nearest is not None:
            self._classes[place] = torch.where(usable, nearest, -1).cpu()

    def missing(self) -> list[str]:
        """The layers that did not run in this batch."""
        return [each.info.label for place, each in enumerate(self.references) if place not in self._batch]

    def row(self) -> tuple[Tensor, Tensor | None]:
        """The terms of the batch (N, m), and the nearest class of each sample at the last layer that has classes."""
        rows = torch.empty(len(next(iter(self._batch.values()))), len(self.terms), dtype=torch.float64)
        for place, part in self._batch.items():
            rows[:, self.columns[place]] = part
        return rows, self._classes[max(self._classes)] if self._classes else None

    def commit(self) -> None:
        """The batch is over."""
        rows, nearest = self.row()
        self.parts.append(rows)
        if nearest is not None:
            self.nearest.append(nearest)

    def _check(self, reference: LayerReference, activation: Activation) -> None:
        info, d = activation.info, activation.values.shape[-1]
        if d != reference.d or info.axis != reference.info.axis:
            raise ValueError(
                f"Argument `model` must be of the architecture that was studied, whose layer {reference.info.label!r} "
                f"has {reference.d} features on axis {reference.info.axis}, but there it has {d} on axis {info.axis}. "
                "Make a detector from a study of this network."
            )


def check_terms(terms: Sequence[Term], references: Sequence[LayerReference]) -> None:
    """Raises `Malformed` where a term is none that its layer can have."""
    for term in terms:
        if term.layer >= len(references):
            raise Malformed(f"a term of layer {term.layer} needs more layers than {len(references)}")
        reference = references[term.layer]
        by_class = reference.classes is not None and term.positions == MEAN
        known = (*(("mahalanobis", "relative") if by_class else ()), *LABEL_FREE)
        worst = term.positions == WORST and reference.every is not None
        if term.method not in known or not (term.positions == MEAN or worst):
            raise Malformed(
                f"layer {reference.info.label!r} has no score by {term.method!r} of {term.positions!r}"
            )
