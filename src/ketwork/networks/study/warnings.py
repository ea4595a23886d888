"""What a reader of a study's numbers should know: too few data, what was skipped, what only bounds are known of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ketwork.networks.measures import DECISIVE, Measure
from ketwork.networks.study.layer import FEW_SAMPLES, Layer
from ketwork.networks.study.tables import bounded

_HEAVIEST = 5
_HEAVY = 0.2
_MANY = 50
_DECISIVE = 0.5


def unfinished_warning(layers: Sequence[Layer]) -> str:
    """Of numbers that are missing after an interruption: those of layers, or else the comparison of these."""
    left = sum(not layer.finished for layer in layers)
    what = f"The numbers of {left} of {len(layers)} layers" if left else "The comparison of the layers"
    return (
        f"{what} had not been computed when the study was interrupted (–). What they follow from is kept: "
        "`study.finish()` computes them, and so does the command that shows a saved study."
    )


def missing_warning(layers: Sequence[Layer], measures: Sequence[Measure]) -> str | None:
    """Of measures that a small file lacks, as one of an older version does; None where it has all."""
    names = [
        each.title
        for each in measures
        if each.needs == "layer"
        and any(
            layer.finished and not layer.computable and each.name not in layer.estimates for layer in layers
        )
    ]
    if not names:
        return None
    return (
        f"The file lacks {', '.join(names)} (–), and what that is computed from. Files that are saved with "
        '`save(path, states="full")` (--states full) have what measures of later versions need.'
    )


def pass_warnings(layers: Sequence[Layer]) -> list[str]:
    """Of the data: too few of them, and samples that were skipped."""
    messages = []
    entropies = {layer: layer.estimate("entropy") for layer in layers}
    missing = [layer for layer, s in entropies.items() if math.isnan(s) and not math.isnan(s.plain)]
    if missing:
        least = min(layer.N_eff for layer in missing)
        messages.append(
            f"Too few independent samples at {listed([layer.name for layer in missing])} (N_eff = {least:.0f}): the "
            "data's entropy, effective rank and coherence are too far from those of the distribution they come from, "
            "and are not shown (`long()` has them as `plain`). Give more samples; positions of one do not count."
        )
    few = [layer.name for layer in layers if layer.few_samples and layer not in missing]
    if few:
        messages.append(
            f"Fewer than {FEW_SAMPLES} independent samples per dimension in use in {listed(few)}: the correction of "
            "entropy, effective rank and coherence for finite data is large there. Give more samples."
        )
    wide = [layer.name for layer in layers if layer.sketch is None and entropies[layer].bounds is not None]
    if wide:
        messages.append(
            f"Wide layers are not decomposed: at {listed(wide)} entropy, ranks and coherence are estimated from random "
            "vectors, lie in their interval in 99.7 % of cases, and are not corrected for finite data. `exact=True` "
            "(--exact) decomposes them, which takes minutes a layer."
        )
    for layer in layers:
        share = _heavy(layer)
        if share > _HEAVY:
            messages.append(
                f"At {layer.name}, {_HEAVIEST} of {layer.N} samples carry {share:.0%} of the weight (N_eff = "
                f'{layer.N_eff:.0f}): its numbers and their ± rest on them. `normalize="state"` weighs vectors alike.'
            )
    rare = {layer.name: layer.decisive or 0.0 for layer in layers}
    rare = {name: share for name, share in rare.items() if share > _DECISIVE}
    if rare:
        messages.append(
            f"{DECISIVE} of the samples that ± is estimated from carry up to {max(rare.values()):.0%} of the variance "
            f"of the entropy at {listed(list(rare))}: such samples are rare, and ± is likely too small, that of other "
            "numbers too. Give more samples."
        )
    dropped = {layer.name: layer.accumulator.dropped for layer in layers if layer.accumulator.dropped}
    if dropped:
        counts = ", ".join(f"{count} at {name}" for name, count in dropped.items())
        messages.append(f"Samples skipped for NaN or infinite values: {counts}.")
    return messages


def _heavy(layer: Layer) -> float:
    """The share of the weight that the heaviest samples carry, where there are many."""
    heaviest = layer.accumulator.heaviest
    if (
        heaviest is None
        or heaviest.weights is None
        or layer.N < _MANY
        or not layer.accumulator.moment.weight > 0
    ):
        return 0.0
    return float(heaviest.weights.sort().values[-_HEAVIEST:].sum()) / layer.accumulator.moment.weight


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
