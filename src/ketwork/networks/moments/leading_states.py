"""`LeadingStates`: what a small file keeps of a layer's moment, the spectrum and the leading eigenstates of its state.

All else of the moment is gone: what needs it is refused, with what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ketwork.records import Count, Form, Malformed


class MissingStatesError(ValueError):
    """A record that was saved with its leading states alone lacks what a use of it needs."""


@dataclass(frozen=True)
class LeadingStates:
    """A state's spectrum (r,), the largest first, and its k leading eigenstates (k, d); centred or not.

    `held` is how many eigenstates the moment had, fewer than eigenvalues where it was a sketch.
    """

    values: Annotated[Tensor, Form("real r")]
    states: Annotated[Tensor, Form("ket k d")]
    held: Count
    center: bool

    def check(self) -> None:
        """No more states than there were, and eigenvalues in order, none negative."""
        if len(self.states) > self.held:
            raise Malformed(f"{self.held} eigenstates cannot have {len(self.states)} leading ones")
        if bool((self.values < 0).any()) or bool((self.values.diff() > 0).any()):
            raise Malformed("eigenvalues must not be negative, and the largest be first")

    def first(self, rank: int, center: bool) -> Tensor:
        """So many leading eigenstates (rank, d), in 64 bits a number.

        Raises:
            MissingStatesError: they are more than there are, or of the other of the centred and uncentred states.
        """
        if center != self.center:
            other = "centred" if center else "uncentred"
            raise MissingStatesError(
                f"This study was saved with its leading states alone, not those of the {other} state. "
                f"{remedy('full')}."
            )
        if rank > len(self.states):
            raise MissingStatesError(
                f"This study was saved with the {len(self.states)} leading states of each layer, but {rank} are "
                f'needed. {remedy(str(rank))}, or with all of them (states="full").'
            )
        wide = torch.complex128 if self.states.is_complex() else torch.float64
        states = self.states[:rank].to(wide)
        return states / torch.linalg.vector_norm(states, dim=1, keepdim=True)

    def cut(self, most: int) -> LeadingStates:
        """At most so many states, of which a file needs no more than 32 bits a number."""
        narrow = torch.complex64 if self.states.is_complex() else torch.float32
        return LeadingStates(self.values, self.states[:most].to(narrow), self.held, self.center)


def missing_states(kept: int, what: str) -> MissingStatesError:
    """The error of `what` needs all that was gathered, in a record with so many leading states of each layer."""
    return MissingStatesError(
        f"This study was saved with {kept} leading states of each layer, but {what} needs all of what was gathered. "
        f"{remedy('full')}."
    )


def remedy(states: str) -> str:
    """What to do where states are missing."""
    argument = states if states.isdecimal() else f'"{states}"'
    return f"Save the study with `save(path, states={argument})` (--states {states}), and load that"
