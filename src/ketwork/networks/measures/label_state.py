"""`LabelState`: what every measure of labels at a layer is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ketwork._lazy import cached_property
from ketwork.networks.measures.state import Shared
from ketwork.networks.moments import ClassMoments, LabelledMoments, Sums


@dataclass(frozen=True, eq=False)
class LabelState(Shared):
    """A layer's pooled vectors by label: the fitting part's moments, and the samples kept to choose and score by.

    `names` are the labels in the order of their codes, none where labels are numbers.
    """

    labelled: LabelledMoments
    names: tuple[Any, ...]

    @cached_property
    def fitting(self) -> Sums:
        """The sums over the fitting part."""
        return self.labelled.fitting(len(self.names))

    @property
    def moments(self) -> ClassMoments:
        """The fitting part's moments by label."""
        return self.fitting.moments

    @property
    def numbers(self) -> bool:
        """Whether labels are numbers."""
        return self.fitting.cross is not None

    @property
    def several(self) -> bool:
        """Whether the fitting part has vectors of two labels at least, so that there is something to tell apart."""
        return not self.numbers and int(self.moments.present.sum()) > 1
