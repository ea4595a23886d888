"""`Scoring`: a batch's activations become one row of terms a sample, inside the hook; nothing else is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.activations import Activation, Key, unit
from ketwork.networks.detection.references import MEAN, WORST, LayerReference, stacked
from ketwork.networks.detection.stacks import LABEL_FREE, Stack
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

    Hooks pool each layer's activation; once all have run, layers of one shape are scored together. A layer whose vector
    is zero has no ket: its terms are NaN. So are those of NaN or infinite activations, whose samples are in `bad`, by
    layer.
    """

    references: Sequence[LayerReference]
    terms: Sequence[Term]
    parts: list[Tensor] = field(default_factory=list)
    nearest: list[Tensor] = field(default_factory=list)
    bad: dict[str, list[int]] = field(default_factory=dict)
    _vectors: dict[int, Tensor] = field(default_factory=dict)
    _worst: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places: dict[Key, int] = {}
        for place, reference in enumerate(self.references):
            self.places[reference.info.key] = place
        self.columns = {(term.layer, term.method, term.positions): i for i, term in enumerate(self.terms)}
        self._methods: dict[str, list[tuple[str, ...]]] = {
            positions: [
                tuple(
                    each.method for each in self.terms if (each.layer, each.positions) == (place, positions)
                )
                for place in range(len(self.references))
            ]
            for positions in (MEAN, WORST)
        }

    @cached_property
    def stacks(self) -> list[Stack]:
        """The layers, those of one shape together."""
        return stacked(self.references, self._methods[MEAN])

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
        self._vectors.clear()
        self._worst.clear()
        self.bad.clear()

    def receive(self, activation: Activation) -> None:
        """Takes one layer's activation.

        Raises:
            ValueError: it is not of the layer that was studied.
        """
        place = self.places.get(activation.key)
        if place is None or place in self._vectors:
            return
        reference = self.references[place]
        self._check(reference, activation)
        with torch.no_grad(), _full_precision(activation.values):
            self._vectors[place] = reference.vectors(activation)
            if methods := self._methods[WORST][place]:
                self._worst[place] = reference.worst(activation, methods)

    def missing(self) -> list[str]:
        """The layers that did not run in this batch."""
        return [each.info.label for place, each in enumerate(self.references) if place not in self._vectors]

    def row(self) -> tuple[Tensor, Tensor | None]:
        """The terms of the batch (N, m), and the nearest class of each sample at the last layer that has classes."""
        rows = torch.empty(len(self._vectors[0]), len(self.terms), dtype=torch.float64)
        classes: dict[int, Tensor] = {}
        for stack in self.stacks:
            vectors = [self._vectors[place] for place in stack.places]
            with torch.no_grad(), _full_precision(vectors[0]):
                self._score(stack, torch.stack(vectors), rows, classes)
        return rows, classes[max(classes)] if classes else None

    def keep(self, rows: Tensor, nearest: Tensor | None) -> None:
        """The batch is over, and these are its terms and nearest classes."""
        self.parts.append(rows)
        if nearest is not None:
            self.nearest.append(nearest)

    def _score(self, stack: Stack, vectors: Tensor, rows: Tensor, classes: dict[int, Tensor]) -> None:
        """Scores one stack's vectors (L, N, d) into its columns of the rows."""
        kets, norms = unit(vectors)
        scores, nearest = stack.scores(kets, self._methods[MEAN][stack.places[0]])
        finite = norms.isfinite()
        if not bool(finite.all()):
            for place, each in zip(stack.places, finite, strict=True):
                if not bool(each.all()):
                    self.bad[self.references[place].info.label] = (~each).nonzero()[:, 0].tolist()
        usable = finite & (norms > 0)
        for i, place in enumerate(stack.places):
            for method, each in self._worst.get(place, {}).items():
                rows[:, self.columns[place, method, WORST]] = _known(each, usable[i])
        for method, each in scores.items():
            columns = [self.columns[place, method, MEAN] for place in stack.places]
            rows[:, columns] = _known(each, usable).T
        if nearest is not None:
            nearest = torch.where(usable, nearest, -1).cpu()
            classes.update(zip(stack.places, nearest, strict=True))

    def _check(self, reference: LayerReference, activation: Activation) -> None:
        info, d = activation.info, activation.values.shape[-1]
        if d != reference.d or info.axis != reference.info.axis:
            raise ValueError(
                f"Argument `model` must be of the architecture that was studied, whose layer {reference.info.label!r} "
                f"has {reference.d} features on axis {reference.info.axis}, but there it has {d} on axis {info.axis}. "
                "Make a detector from a study of this network."
            )


def _known(scores: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable & scores.isfinite(), scores.double(), torch.nan).cpu()


def _full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Autocast is off, in whose precision distances would be noise."""
    kind = values.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


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
