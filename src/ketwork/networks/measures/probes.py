"""Measures of how well labels are read out of a layer, fitted by `readouts`, scored on held-out samples by `scores`."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ketwork.networks.measures import scores
from ketwork.networks.measures.label_state import LabelState
from ketwork.networks.measures.readouts import KINDS, LINEAR, PRETTY_GOOD, Readout, read_out
from ketwork.networks.measures.registry import Column, measure
from ketwork.quantum import Estimate

SHORT = {PRETTY_GOOD: "pgm", LINEAR: "linear"}
"""The readouts as the columns name them."""

_NAMES = {
    PRETTY_GOOD: (
        "pretty good measurement",
        "pretty good measurement (the standard near-optimal quantum measurement; centred, filtered kets with a "
        "reference amplitude, equal priors)",
    ),
    LINEAR: (
        "linear probe",
        "linear probe (closed form: ridge on unit kets with a constant, classes weighing the same)",
    ),
}
_SCORES = {
    "accuracy": (
        "accuracy",
        "share of held-out samples classified correctly by the {}",
        Column("{} acc.", "", 13, False),
    ),
    "balanced": (
        "balanced accuracy",
        "share of held-out samples classified correctly by the {}, averaged over labels",
        Column("{}", "balanced", 9),
    ),
    "auc": (
        "AUC",
        "area under the ROC curve of the {}, each label against the rest, averaged over labels",
        Column("{} AUC", "", 12, False),
    ),
}


@dataclass(frozen=True)
class Readings:
    """The solved readouts, their held-out scores (n, K), and counts (label, label read), by kind."""

    readouts: dict[str, Readout] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)
    confusion: dict[str, Tensor] = field(default_factory=dict)


def readings(state: LabelState) -> Readings:
    """Solves the readouts and scores them. Cost O(d³) and a few products of size rows × q × samples."""
    fitting, held = state.fitting, state.labelled.held
    if state.numbers:
        if not float(fitting.moments.counts.sum()) > 1:
            return Readings()
        readouts = read_out(state.labelled, fitting, (LINEAR,))
        return Readings(readouts, {kind: each.scores(held.kets) for kind, each in readouts.items()})
    if not state.several:
        return Readings()
    readouts = read_out(state.labelled, fitting)
    scored = {kind: each.scores(held.kets) for kind, each in readouts.items() if len(held)}
    return Readings(
        readouts, scored, {kind: scores.confusion(each, held.targets) for kind, each in scored.items()}
    )


def _declare(kind: str, score: str) -> None:
    title, definition = _NAMES[kind]
    words, sentence, column = _SCORES[score]
    header = Column(
        column.header.format(SHORT[kind]),
        column.unit,
        4 if (kind, score) == (LINEAR, "balanced") else column.rank,
        column.page,
    )

    @measure(
        f"{SHORT[kind]}_{score}",
        title=f"{title}, {words}",
        definition=sentence.format(definition),
        needs="classes",
        show="number" if score == "auc" else "percent",
        column=header,
        reading="Selection bias: the best of many layers is best by chance in part. Differences within the errors "
        "are none.",
    )
    def scored(state: LabelState) -> Estimate:
        predicted = state.shared(readings).scores.get(kind)
        if predicted is None:
            return Estimate()
        held = state.labelled.held
        return scores.MEASURES[score](predicted, held.targets, held.samples)


for _kind in SHORT:
    for _score in _SCORES:
        _declare(_kind, _score)


@measure(
    "linear_r2",
    title="linear probe, R²",
    definition="share of the numbers' variance on held-out samples that the linear probe explains",
    needs="values",
    column=Column("linear R²", "", 4),
)
def linear_r2(state: LabelState) -> Estimate:
    """R² of the linear probe."""
    predicted = state.shared(readings).scores.get(LINEAR)
    if predicted is None:
        return Estimate()
    held = state.labelled.held
    return scores.r_squared(predicted, held.targets, held.samples)


__all__ = ["KINDS", "SHORT", "Readings", "linear_r2", "readings"]
