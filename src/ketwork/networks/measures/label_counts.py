"""`LabelCounts`: what a small file keeps of a layer's vectors by label: how many, and which were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NoReturn

from torch import Tensor

from ketwork.networks.moments import LabelledMoments, missing_states
from ketwork.records import Count, Form, Malformed, check_codes


@dataclass(frozen=True)
class HeldLabels:
    """The labels' codes (n,) of the held-out vectors, 0 for all where labels are numbers, and their samples (n,)."""

    codes: Annotated[Tensor, Form("int n")]
    samples: Annotated[Tensor, Form("int n")]

    @property
    def targets(self) -> Tensor:
        """The codes."""
        return self.codes


@dataclass(frozen=True)
class LabelCounts:
    """The vectors of each label in the fitting part (k,), and the labels of the `held` ones.

    `states` is how many leading states the file has of each layer.
    """

    fitted: Annotated[Tensor, Form("int k")]
    held: HeldLabels
    states: Count
    complex: bool = False

    @classmethod
    def from_moments(cls, moments: LabelledMoments, classes: int, states: int) -> LabelCounts:
        """The counts of what was gathered, of at least so many classes."""
        fitted = moments.counts(classes)
        return cls(fitted, HeldLabels(moments.held.codes, moments.held.samples), states)

    def check(self) -> None:
        """No count is negative, and each held-out label is one of those counted."""
        if bool((self.fitted < 0).any()):
            raise Malformed("there cannot be fewer than no vectors of a label")
        check_codes(self.held.codes, max(len(self.fitted), 1))

    def counts(self, classes: int) -> Tensor:
        """The vectors of each class in the fitting part, as `LabelledMoments` has them."""
        return self.fitted

    def fitting(self, classes: int = 0) -> NoReturn:
        """Raises `MissingStatesError`: the states of labels are not kept."""
        raise missing_states(self.states, "the states of labels")
