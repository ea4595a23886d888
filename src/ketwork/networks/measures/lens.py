"""The logit lens: what the network would predict from the residual stream at a layer, through its final norm and head.

Predictions of a layer are q = softmax(W norm(x)), with x the residual stream there, and p = softmax(W norm(x_L)) those
that the network makes. KL(p ‖ q) falls to 0 with depth (nostalgebraist 2020, "interpreting GPT: the logit lens"). What
is needed of them is a number a position, so that no moment of the vocabulary's width is ever made: it is
taken in the pass (`study/lens.py`), and its means, definitions and errors are here.
"""

from __future__ import annotations

from ketwork.networks.measures.ratios import ratio_of
from ketwork.networks.measures.registry import Column, measure
from ketwork.networks.measures.state import LayerState
from ketwork.networks.moments import SampleRatio
from ketwork.quantum import Estimate

LENS = ("lens_kl", "lens_entropy", "lens_agreement")


@measure(
    "lens_kl",
    title="logit lens KL",
    unit="bit",
    definition="KL(p ‖ q) of the network's predictions p from those q = softmax(W norm(x)) of its final norm and head "
    "on the residual stream x at this layer, averaged over positions",
    sums=SampleRatio,
    option="lens",
    column=Column("lens KL", "bits", 6),
    reading="0 at the end of the network; where it falls is where predictions are made.",
)
def lens_kl(state: LayerState) -> Estimate:
    """The mean over positions."""
    return ratio_of(state, "lens_kl")


@measure(
    "lens_entropy",
    title="entropy of the lens' predictions",
    unit="bit",
    definition="entropy −Σ q log₂ q of the predictions q = softmax(W norm(x)) that final norm and head make of the "
    "residual stream x at this layer, averaged over positions; after the last block that of the network's predictions",
    sums=SampleRatio,
    option="lens",
    column=Column("lens entropy", "bits", 6),
)
def lens_entropy(state: LayerState) -> Estimate:
    """The mean over positions."""
    return ratio_of(state, "lens_entropy")


@measure(
    "lens_agreement",
    title="agreement of the lens' predictions",
    definition="share of positions at which the likeliest token of the lens' predictions is that of the network's",
    show="percent",
    sums=SampleRatio,
    option="lens",
    column=Column("lens agrees", "of positions", 9, page=False),
)
def lens_agreement(state: LayerState) -> Estimate:
    """The mean over positions."""
    return ratio_of(state, "lens_agreement")
