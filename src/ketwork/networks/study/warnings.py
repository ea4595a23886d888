"""What a reader of a study's numbers should know: too few data, what was skipped, what only bounds are known of."""

from __future__ import annotations

from collections.abc import Sequence

from ketwork.networks.study.layer import Layer
from ketwork.networks.study.tables import bounded

FEW_VECTORS = 10
"""Vectors a dimension, below which entropy and effective rank are visibly limited by the data."""


def pass_warnings(layers: Sequence[Layer]) -> list[str]:
    """Of the data: too few of them, and samples that were skipped."""
    messages = []
    few = [layer.name for layer in layers if layer.kets < FEW_VECTORS * layer.d]
    if few:
        messages.append(
            f"Fewer than {FEW_VECTORS} vectors per dimension in {listed(few)}: entropy and effective rank are limited "
            "by the data there. Give more samples."
        )
    dropped = {layer.name: layer.accumulator.dropped for layer in layers if layer.accumulator.dropped}
    if dropped:
        counts = ", ".join(f"{count} at {name}" for name, count in dropped.items())
        messages.append(f"Samples skipped for NaN or infinite values: {counts}.")
    return messages


def label_warnings(layers: Sequence[Layer]) -> list[str]:
    """Of the labels: what no readout could learn, and what is known only within bounds."""
    decoded = {layer.name: layer.labels for layer in layers if layer.labels is not None}
    places: dict[str, list[str]] = {}
    for name, labels in decoded.items():
        for warning in labels.warnings:
            places.setdefault(warning, []).append(name)
    # Layers differ where samples fell out at some of them, for NaN or zero activations.
    messages = [
        warning if len(names) == len(decoded) else f"At {listed(names)}: {warning}"
        for warning, names in places.items()
    ]
    lost = {name: labels.discarded for name, labels in decoded.items() if labels.discarded > 0}
    sketched = [name for name in lost if bounded(decoded[name].estimates)]
    if sketched:
        most = max(lost[name] for name in sketched)
        messages.append(
            f"The states of the labels are sketches at {listed(sketched)}, without up to {most:.0%} of their "
            "weight: Holevo's bits lie between their bounds; the readouts are solved from the sketches, and scored "
            "on held-out samples as always."
        )
    cut = [name for name in lost if name not in sketched]
    if cut:
        most = max(lost[name] for name in cut)
        messages.append(
            f"Labels and features are too many for a state of each label at {listed(cut)}: up to {most:.0%} of "
            "the weight is kept for all labels in common. Holevo's bits are a lower bound there, and the pretty "
            "good measurement takes the common part for each label's own."
        )
    return messages


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
