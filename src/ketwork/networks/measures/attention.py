"""Measures of attention patterns: how widely a head looks, how much at the first position, and their rank.

The numbers of each position are taken in the pass (`study/attention.py`); here are their means, definitions and errors.
"""

from __future__ import annotations

from ketwork.networks.measures.ratios import ratio_of
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import SampleRatio
from ketwork.quantum import Estimate

PATTERNS = ("attention_entropy", "attention_sink", "attention_rank")


@measure(
    "attention_entropy",
    title="entropy of attention",
    unit="bit",
    definition="entropy −Σₛ A log₂ A of the weights with which a position attends to others, averaged over positions "
    "after the first of their sample; of an attention layer's own row also over its heads",
    sums=SampleRatio,
    option="attention",
    column=Column("attention", "bits", 6),
    reading="0: each position looks at a single other; log₂ of their number: at all alike.",
)
def attention_entropy(state: LayerState) -> Estimate:
    """The mean over positions."""
    return ratio_of(state, "attention_entropy")


@measure(
    "attention_sink",
    title="attention to the first position",
    definition="weight with which positions attend to the first of their sample, averaged over positions after it",
    show="percent",
    sums=SampleRatio,
    option="attention",
    column=Column("to first", "of weights", 6),
    reading="Near 100 %: the head rests, its weights are at an attention sink.",
)
def attention_sink(state: LayerState) -> Estimate:
    """The mean over positions."""
    return ratio_of(state, "attention_sink")


@measure(
    "attention_rank",
    title="rank of attention",
    unit="dimensions",
    definition="effective number (Σσ²)²/Σσ⁴ of singular values σ of a sample's attention pattern (positions × "
    "positions), averaged over samples; 1 where all positions attend alike",
    sums=SampleRatio,
    option="attention",
    column=Column("att. rank", "(Σσ²)²/Σσ⁴", 9),
)
def attention_rank(state: LayerState) -> Estimate:
    """The mean over samples."""
    return ratio_of(state, "attention_rank")
