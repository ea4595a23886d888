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

DEFINITIONS: dict[str, str] = {
    "layer": "the module's dotted path in the network",
    "call": "which call of the module in a forward pass, from 0; −1 where its calls are pooled",
    "kind": "the module's class",
    "d": "features: neurons or channels, the dimension of the kets",
    "N": "samples",
    "kets": "positions of samples that entered, zero vectors excluded",
    "n_per_d": "kets / d: below about 10, entropy and effective rank are visibly limited by the data",
    "dropped": "samples left out at this layer for NaN or infinite values",
    **{q.name: f"{q.definition} [{q.unit}]" if q.unit else q.definition for q in QUANTITIES},
}
