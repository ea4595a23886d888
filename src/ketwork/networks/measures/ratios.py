"""Measures that are means over positions or samples: what they have in common."""

from __future__ import annotations

from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import SampleRatio
from ketwork.quantum import Estimate


def ratio_of(state: LayerState, name: str) -> Estimate:
    """The mean of the measure's own sum, a `SampleRatio`, with its standard error over samples."""
    sums = state.accumulator.sums[name]
    assert isinstance(sums, SampleRatio)
    return sums.estimate
