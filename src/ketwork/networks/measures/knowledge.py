"""What a layer knows of the labels: Holevo bits with their null, and two readouts scored on held-out samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.measures import holevo as information
from ketwork.networks.measures import scores as score
from ketwork.networks.measures.bounds import around
from ketwork.networks.measures.probes import KINDS, LINEAR, PRETTY_GOOD, Readout, read_out
from ketwork.networks.measures.quantities import CLASS_QUANTITIES, VALUE_QUANTITIES
from ketwork.networks.measures.readings import PACKED, pack, unpack
from ketwork.networks.moments.labelled_moments import LabelledStatistics, Rows
from ketwork.quantum import Density, Ensemble, Estimate, Measurement
from ketwork.records.checked import Malformed, check, check_tensors
from ketwork.records.storage import under

_HEADER = {
    "names": [(str, int, float, bool)],
    "statistics": dict,
    "estimates": PACKED,
    "confusion": [KINDS],
    "strengths": {str: float},
    "discarded": float,
}


@dataclass(frozen=True)
class Knowledge:
    """What one layer knows: `estimates` by quantity, `confusion` counts (label, read) by readout.

    `names` are the labels; `strengths` the regularisation that was chosen on the fitting part; `discarded`
    the share of the kets' weight that no label keeps as its own (0 unless labels and features are many).
    """

    names: tuple[Any, ...]
    statistics: LabelledStatistics
    estimates: dict[str, Estimate]
    confusion: dict[str, Tensor]
    strengths: dict[str, float]
    discarded: float

    @property
    def held_out(self) -> Tensor:
        """Indices in the data of the samples that the readouts were scored on, which no fit has seen."""
        return self.statistics.held.samples.unique()

    @property
    def counts(self) -> tuple[int, ...]:
        """How many pooled kets of each label the fitting part holds, in the order of `names`."""
        return tuple(int(count) for count in self.statistics.counts(len(self.names)))

    @property
    def labels(self) -> tuple[Any, ...]:
        """The labels that the fitting part holds, in the order of `names`."""
        return tuple(name for name, count in zip(self.names, self.counts, strict=False) if count)

    def state(self, label: Any) -> Density:
        """The state of a label: ρ = (1/n) Σ |ψ⟩⟨ψ| over the fitting part's pooled kets that have it.

        Where there are many labels of many features, of the part that the label keeps as its own; see
        `discarded`.
        """
        return self._states([label])[0]

    def ensemble(self) -> Ensemble:
        """The states of `labels` with their frequencies in the fitting part."""
        counts = torch.tensor([count for count in self.counts if count], dtype=torch.float64)
        return Ensemble(counts / counts.sum(), self._states(list(self.labels)))

    def helstrom(self, a: Any, b: Any) -> float:
        """The best success of one measurement of one copy at telling labels a and b, equally likely: ½(1 + D).

        D is the trace distance of the two labels' states (Helstrom 1969). Where labels lost the shares δ of their
        weight (see `discarded`) it lies within (δₐ + δ_b)/2 of that of the whole states. Cost O(d³) at most.
        """
        first, second = self._states([a, b])
        best = Measurement.helstrom(first, second, 0.5)
        return float(best.success(Ensemble([0.5, 0.5], [first, second])))

    @property
    def warnings(self) -> list[str]:
        """What a reader of these numbers should know."""
        found: list[str] = []
        if not self.names:
            return found
        if len(self.labels) < 2:
            only = f"only the label {self.labels[0]!r}" if self.labels else "no label"
            return [f"The samples to fit have {only}: there is nothing to tell apart."]
        held = set(self.statistics.held.targets.tolist())
        unread = [name for code, name in enumerate(self.names) if code in held and name not in self.labels]
        unseen = [name for name in self.labels if self.names.index(name) not in held]
        if unread:
            found.append(f"Labels without a sample to fit, which no readout can read: {_listed(unread)}.")
        if unseen:
            found.append(f"Labels without a held-out sample, which no score counts: {_listed(unseen)}.")
        return found

    def _states(self, labels: list[Any]) -> list[Density]:
        for label in labels:
            if label not in self.labels:
                known = ", ".join(map(str, self.labels))
                raise KeyError(f"No label {label!r} in the fitting part; it has {known}.")
        moments, is_complex = self.statistics.fitting().moments, self.statistics.complex
        return [information.state(moments, self.names.index(label), is_complex) for label in labels]

    def header(self) -> dict[str, Any]:
        """All but the tensors, for a file."""
        return {
            "names": list(self.names),
            "statistics": self.statistics.header(),
            "estimates": pack(self.estimates),
            "confusion": list(self.confusion),
            "strengths": self.strengths,
            "discarded": self.discarded,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        return self.statistics.tensors() | {f"confusion.{kind}": t for kind, t in self.confusion.items()}

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Knowledge:
        """What `header` and `tensors` described."""
        check(header, _HEADER, "knowledge")
        names = tuple(header["names"])
        statistics = LabelledStatistics.from_header(header["statistics"], tensors)
        if statistics.classes > max(1, len(names)):
            raise Malformed(f"knowledge of {len(names)} labels has sums of more")
        k = {"k": len(names)}
        for kind in header["confusion"]:
            check_tensors(under("confusion.", tensors), k, **{kind: "int k k"})
        return cls(
            names,
            statistics,
            unpack(header["estimates"]),
            {kind: tensors[f"confusion.{kind}"] for kind in header["confusion"]},
            dict(header["strengths"]),
            header["discarded"],
        )


def knowledge(statistics: LabelledStatistics, names: tuple[Any, ...]) -> Knowledge:
    """Solves and scores the readouts of one layer. Cost O(d³) and a few products of size rows × q × samples."""
    fitting, held = statistics.fitting(len(names)), statistics.held
    moments = fitting.moments
    values = fitting.cross is not None
    found = {q.name: Estimate(math.nan) for q in (VALUE_QUANTITIES if values else CLASS_QUANTITIES)}
    if values:
        readouts = read_out(statistics, fitting, (LINEAR,)) if float(moments.counts.sum()) > 1 else {}
        for readout in readouts.values():
            found["linear_r2"] = score.r_squared(readout.scores(held.kets), held.targets, held.samples)
        return Knowledge((), statistics, found, {}, _strengths(readouts), moments.discarded)
    if int(moments.present.sum()) < 2:
        return Knowledge(names, statistics, found, {}, {}, moments.discarded)
    if moments.sketched:
        low, high = information.bounds(moments, statistics.complex)
        found["holevo"] = Estimate((low + high) / 2, bounds=around((low + high) / 2, low, high))
    else:
        found["holevo"] = Estimate(information.bits(moments, statistics.complex))
    kept = Rows.joined([held, statistics.checks])
    kept = kept[kept.keys.argsort(stable=True)]  # in whatever order they came together
    counts = [int(count) for count in moments.counts.tolist() if count > 0]
    null = information.null_bits(information.as_complex(kept.kets, statistics.complex), counts)
    found["holevo_null"] = Estimate(null)
    readouts = read_out(statistics, fitting)
    confusions = {}
    for kind, readout in readouts.items() if len(held) else ():
        scores = readout.scores(held.kets)
        for name, measure in score.MEASURES.items():
            found[f"{SHORT[kind]}_{name}"] = measure(scores, held.targets, held.samples)
        confusions[kind] = score.confusion(scores, held.targets)
    return Knowledge(names, statistics, found, confusions, _strengths(readouts), moments.discarded)


SHORT = {LINEAR: "linear", PRETTY_GOOD: "pgm"}
"""The readouts as the columns name them."""


def _strengths(readouts: dict[str, Readout]) -> dict[str, float]:
    return {kind: readout.strength for kind, readout in readouts.items()}


def quantities(task: str | None) -> tuple[Any, ...]:
    """The columns that labels of this kind add to a study."""
    if task is None:
        return ()
    return VALUE_QUANTITIES if task == "values" else CLASS_QUANTITIES


def _listed(names: list[Any], most: int = 6) -> str:
    return ", ".join(map(repr, names[:most])) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )
