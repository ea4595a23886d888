"""The columns of a study: name, unit, and the sentence that defines each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One number that a study gives for each layer."""

    name: str
    unit: str
    definition: str


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("entropy", "bit", "S(ρ) = −Tr ρ log₂ ρ of the layer's state ρ, the mean of its kets |ψ⟩⟨ψ|"),
    Quantity("effective_rank", "dimensions", "2^S: how many equally used dimensions would have this entropy"),
    Quantity(
        "participation_ratio",
        "dimensions",
        "1/Tr ρ², with Tr ρ² estimated without the bias of finite data: only pairs of different samples count",
    ),
    Quantity(
        "coherence",
        "bit",
        "relative entropy of coherence in the neuron basis, S(diag ρ) − S(ρ): 0 if neurons fire alone, "
        "log₂ d if all fire alike",
    ),
    Quantity(
        "ket_coherence",
        "bit",
        "the same for single kets, −Σ|cⱼ|² log₂|cⱼ|², averaged: how many neurons each ket superposes",
    ),
    Quantity("top_weight", "", "the largest eigenvalue of ρ: the share of its leading eigenstate"),
    Quantity("dead", "", "share of neurons that are exactly 0 on every ket"),
    Quantity("zero", "", "share of activations that are zero vectors: counted here, left out elsewhere"),
    Quantity("norm", "activation", "mean length ‖a‖ of the activations that are not zero"),
    Quantity(
        "entanglement",
        "bit",
        "entanglement entropy between positions and features of one sample's state Σ aₜⱼ|t⟩|j⟩, averaged over "
        "sampled samples (of at most 64 positions where both sides are larger)",
    ),
    Quantity(
        "rank_collapse",
        "",
        "1 − entanglement / log₂ min(positions, features), averaged over the same: 1 when all positions "
        "of a sample hold the same ket",
    ),
)

_READOUTS = {
    "pgm": "pretty good measurement (centred, filtered kets with a reference amplitude, equal priors)",
    "linear": "linear readout (ridge on unit kets with a constant, classes weighing the same)",
}
_SCORES = {
    "accuracy": "share of held-out samples read rightly by the {}",
    "balanced": "share of held-out samples read rightly by the {}, averaged over labels",
    "auc": "area under the ROC curve of the {}, each label against the rest, averaged over labels",
}

CLASS_QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        "holevo",
        "bit",
        "Holevo's χ = S(Σ pₖρₖ) − Σ pₖ S(ρₖ) of the labels' states: one measurement of one copy of a pooled ket "
        "gives no more bits of the label (a network reads the whole vector, so its accuracy is not bounded by it)",
    ),
    Quantity("holevo_null", "bit", "what random labels of the same counts would give from as many samples"),
    *(
        Quantity(f"{short}_{name}", "", sentence.format(readout))
        for short, readout in _READOUTS.items()
        for name, sentence in _SCORES.items()
    ),
)
"""With labels that are classes."""

VALUE_QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        "linear_r2", "", "share of the numbers' variance on held-out samples that the linear readout explains"
    ),
)
"""With labels that are numbers."""

DEFINITIONS: dict[str, str] = {
    "layer": "the module's dotted path in the network",
    "call": "which call of the module in a forward pass, from 0; −1 where its calls are pooled",
    "kind": "the module's class",
    "d": "features: neurons or channels, the dimension of the kets",
    "N": "samples",
    "kets": "positions of samples that entered, zero vectors excluded",
    "n_per_d": "kets / d: below about 10, entropy and effective rank are visibly limited by the data",
    "dropped": "samples left out at this layer for NaN or infinite values",
    "sketch": "rank ℓ of the sketch (Frequent Directions) that stands for the layer's d × d moment, which the memory "
    "budget has no room for; the layer is exact where there is none",
    "sketch_error": "certified: in no direction does what the sketch keeps of ρ fall short of ρ by more than this (the "
    "spectral norm of the difference)",
    "bounds": "Columns _low and _high: between these lies, for certain, what exact moments of the same data and kept "
    "samples would give; a number without them is not touched by the sketch. ± is the sampling of the data, as always",
    **{
        q.name: f"{q.definition} [{q.unit}]" if q.unit else q.definition
        for q in (*QUANTITIES, *CLASS_QUANTITIES, *VALUE_QUANTITIES)
    },
}
