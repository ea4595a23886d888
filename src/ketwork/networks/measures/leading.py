"""A layer's leading eigenstates, as pages show them and small files keep them."""

from __future__ import annotations

import torch

from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import LeadingStates

MOST_STATES = 64
"""So many leading eigenstates are kept by default: the page shows two, and a projection rarely needs more."""


def leading_states(state: LayerState, most: int = MOST_STATES) -> LeadingStates:
    """The spectrum of a layer's state, of sum 1, and its leading eigenstates, at most so many.

    Of a layer without a state there are none. Of a sketch the spectrum is the middle of what it may be. Cost O(d³)
    where the state has not been decomposed.
    """
    first = state.accumulator.moment.first
    if not state.exists:
        nothing = torch.zeros(0, dtype=torch.float64, device=first.device)
        return LeadingStates(nothing, first.new_zeros(0, len(first)), 0, state.center)
    values = state.spectrum if state.known is not None else state.spectrum / state.spectrum.sum()
    return LeadingStates(values, state.first_states(most).clone(), state.held, state.center)
