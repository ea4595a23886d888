"""Sinks and massive activations: the share of a layer's vectors and state that a few positions and neurons hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Self

import torch
from torch import Tensor

from ketwork.networks.activations import MULTIPLE
from ketwork.networks.measures.ratios import ratio_of
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import SampleRatio, Vectors
from ketwork.quantum import Estimate
from ketwork.records import Form

PLACES = 32
"""The first places of a sample, of which each has a count of its own; those after them have one together."""

_NAMED = 8  # places

_SINK = f"positions whose ‖a‖² is more than {MULTIPLE:.0f} times the median over their sample"


@dataclass
class SinkCounts(SampleRatio, kind="sink_counts"):
    """Of samples with nᵢ vectors, kᵢ of them sinks, the sums of `SampleRatio`; and at which places of a sample.

    `places` (33,) counts sinks at the first 32 places among the positions that a sample has, and at all others.
    """

    places: Annotated[Tensor, Form("int p")] = field(
        default_factory=lambda: torch.zeros(PLACES + 1, dtype=torch.int64)
    )

    @classmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """Counts by sample."""
        sums = cls.from_samples(vectors, vectors.sinks.double(), torch.ones_like(vectors.squares))
        counts = torch.zeros(PLACES + 1, dtype=torch.int64, device=vectors.sinks.device)
        sums.places = counts.index_add_(0, vectors.places.clamp(max=PLACES), vectors.sinks.long())
        return sums

    @property
    def words(self) -> str:
        """At which places of a sample sinks stand, with how many there, the commonest first: "0 (500), 7 (12)"."""
        numbers = self.places.tolist()
        order = sorted((place for place, n in enumerate(numbers) if n), key=lambda place: -numbers[place])
        named = (
            f"{place if place < PLACES else f'≥ {PLACES}'} ({numbers[place]})" for place in order[:_NAMED]
        )
        return ", ".join(named) + (f" and {len(order) - _NAMED} more" if len(order) > _NAMED else "")


@dataclass
class SinkWeights(SampleRatio, kind="sink_weights"):
    """Of samples with Σ‖a‖² over their vectors, and over those that are sinks, the sums of `SampleRatio`."""

    @classmethod
    def from_vectors(cls, vectors: Vectors) -> Self:
        """Sums by sample."""
        return cls.from_samples(vectors, vectors.sinks.double(), vectors.squares)


@measure(
    "sinks",
    title="sinks",
    definition=f"share of vectors at {_SINK}: what they hold of ρ where every ket has weight 1 (normalize=state)",
    show="percent",
    sums=SinkCounts,
    column=Column("sinks", "of vectors", 7, nonzero=True),
    reading="Of language models often the first token of each text, where attention rests.",
)
def sinks(state: LayerState) -> Estimate:
    """The share, of layers whose samples have several positions."""
    return ratio_of(state, "sinks") if state.accumulator.info.positions else Estimate()


@measure(
    "sink_weight",
    title="weight of sinks",
    definition=f"share of Σ‖a‖² at {_SINK}: what they hold of ρ where kets weigh by ‖a‖² (normalize=ensemble), "
    "not centred",
    show="percent",
    sums=SinkWeights,
    column=Column("sink weight", "of Σ‖a‖²", 7, nonzero=True),
    reading="Near 100 %: with normalize=ensemble the state is that of the sinks alone; see `positions`.",
)
def sink_weight(state: LayerState) -> Estimate:
    """The share, of layers whose samples have several positions."""
    return ratio_of(state, "sink_weight") if state.accumulator.info.positions else Estimate()


@measure(
    "massive",
    title="massive dimensions",
    definition=f"share of ρ in massive dimensions: neurons j with ρⱼⱼ more than {MULTIPLE:.0f} times the median of "
    "those that are not 0",
    show="percent",
    column=Column("massive", "of ρ", 10, nonzero=True, page=False),
    reading="A few neurons with huge values, at sinks above all: they decide quantization, and hide the other neurons.",
)
def massive(state: LayerState) -> Estimate:
    """Σ ρⱼⱼ over them, linear in ρ: its error is that of the mean of what kets have there."""
    if not state.exists:
        return Estimate()
    which = massive_dimensions(state)
    value = float(state.populations[which].sum())
    if not bool(which.any()):
        return Estimate(value, 0.0 if state.sample.samples > 1 else math.nan)
    there = state.sample.kets[..., which].abs().square().sum(dim=-1).double()
    return Estimate(value, state.sample.stderr(there, value))


def massive_dimensions(state: LayerState) -> Tensor:
    """Which neurons hold far more of ρ than the median of them, (d,)."""
    populations = state.populations
    there = populations > 0
    if not bool(there.any()):
        return there
    return populations > MULTIPLE * populations[there].median()
