"""What a small file keeps of a study: every number, and of each layer's state the spectrum and the leading states.

A layer's moment takes 4 d² bytes, and the samples that its standard errors were computed on and those of its labels
about as much each: 3 to 7 MB for 576 features. Its numbers, its spectrum and 64 leading states take 0.17 MB.
"""

from __future__ import annotations

from dataclasses import replace

from ketwork.networks.measures import MOST_STATES, LabelCounts
from ketwork.networks.moments import LabelledMoments, LayerAccumulator, Reservoir
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.layer import Layer, StoredLayer
from ketwork.records import pack

FULL = "full"

MOST_BYTES = 100_000_000
"""A study of more bytes is saved with its leading states alone, unless it is to be saved in full."""

SAVED_SMALL = (
    f"The study is saved with the {MOST_STATES} leading states of each layer, since all that was gathered takes more "
    f"than {MOST_BYTES / 1e6:.0f} MB: such files do not add up, and no detector is made of them. Save it with "
    f'`states="full"` for that, or with `states={MOST_STATES}` if this is what you want.'
)

Parts = tuple[StudyAccumulator, list[StoredLayer]]


def _check(states: int | str | None) -> None:
    """Raises ValueError where `states` is none of what `Study.save` takes."""
    if states is None or states == FULL:
        return
    if isinstance(states, int) and not isinstance(states, bool) and states >= 1:
        return
    raise ValueError(
        f"Argument `states` must be a number of leading states ≥ 1, {FULL!r} for all that was gathered, or None, but "
        f"is {states!r}."
    )


def _size(gathered: StudyAccumulator) -> int:
    """The bytes of the tensors of what was gathered."""
    return sum(tensor.nbytes for tensor in pack(gathered)[1].values())


def kept_states(gathered: StudyAccumulator) -> int | None:
    """How many leading states a record has of each layer, the most of any; None where it has all that was gathered."""
    leading = [row.moment.leading for row in gathered.layers]
    kept = [len(each.states) for each in leading if each is not None]
    return max(kept) if kept else None


def parts_of(
    gathered: StudyAccumulator, layers: tuple[Layer, ...], states: int | str | None
) -> tuple[Parts, int | None]:
    """The parts of a file with so many leading `states` as `Study.save` takes, and how many it has (None: all).

    Raises:
        ValueError: `states` is none, or the record was read from a file that lacks them.
    """
    _check(states)
    kept = kept_states(gathered)
    if states is None:
        if kept is None and (not _finished(layers) or _size(gathered) <= MOST_BYTES):
            states = FULL
        else:
            states = MOST_STATES if kept is None else kept
    elif kept is not None and (states == FULL or int(states) > kept):
        raise ValueError(
            f"Argument `states` must be at most {kept}, since the study was read from a file with so many leading "
            f"states of each layer, but is {states!r}. Study the network again for more."
        )
    if states == FULL or not _finished(layers):
        return (gathered, [layer.stored(complete=False) for layer in layers]), None
    return _small_parts(gathered, layers, int(states)), int(states)


def _finished(layers: tuple[Layer, ...]) -> bool:
    return all(layer.finished for layer in layers)


def _small_parts(gathered: StudyAccumulator, layers: tuple[Layer, ...], most: int) -> Parts:
    """The parts of a file with at most so many leading states of each layer.

    Cost: O(d³) for a layer that has not been decomposed.
    """
    known = {layer.info.key: layer for layer in layers}
    rows = [_small(row, known[row.info.key], most) for row in gathered.layers if row.info.key in known]
    kept = replace(gathered, layers=rows, pairs=None)
    return kept, [_stored(layer, most) for layer in layers]


def _small(row: LayerAccumulator, layer: Layer, most: int) -> LayerAccumulator:
    return replace(
        row,
        moment=row.moment.cut(layer.leading.cut(most)),
        reservoir=_without_kets(row.reservoir),
        heaviest=None if row.heaviest is None else _without_kets(row.heaviest),
        labelled=None,
    )


def _stored(layer: Layer, most: int) -> StoredLayer:
    counts: LabelCounts | None = None
    if layer.labels is not None:
        moments = layer.labels.moments
        counts = moments if isinstance(moments, LabelCounts) else _counted(moments, layer, most)
    return replace(layer.stored(complete=False), plane=layer.plane, counts=counts)


def _counted(moments: LabelledMoments, layer: Layer, most: int) -> LabelCounts:
    assert layer.labels is not None
    return LabelCounts.from_moments(moments, len(layer.labels.names), most)


def _without_kets(kept: Reservoir) -> Reservoir:
    """The samples' keys and weights alone."""
    return replace(kept, kets=kept.kets[:, :0], norms=kept.norms[:, :0])
