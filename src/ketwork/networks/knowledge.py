"""What a layer knows of the labels: Holevo bits with their null, and two readouts scored on held-out samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks import scores as score
from ketwork.networks.labelled import LabelledStatistics
from ketwork.networks.moments import Moment
from ketwork.networks.quantities import CLASS_QUANTITIES, VALUE_QUANTITIES
from ketwork.networks.readings import Estimate, pack, unpack
from ketwork.networks.readouts import read_out, regress
from ketwork.quantum import Density, Ensemble, Measurement, holevo, shannon_entropy

_NULL_SIZES = 6


@dataclass(frozen=True)
class Knowledge:
    """What one layer knows: `estimates` by quantity, `confusion` counts (label, read) by readout.

    `names` are the labels; `strengths` the regularisation that was chosen on the fitting part; `held_out`
    the indices of the samples that scored the readouts.
    """

    names: tuple[Any, ...]
    statistics: LabelledStatistics
    estimates: dict[str, Estimate]
    confusion: dict[str, Tensor]
    strengths: dict[str, float]

    @property
    def held_out(self) -> Tensor:
        """Indices in the data of the samples that the readouts were scored on."""
        return self.statistics.held.samples.sort().values

    def ensemble(self) -> Ensemble:
        """The states of the labels, in the order of `names`, with their frequencies in the fitting part."""
        counts = self.statistics.counts
        total = sum(counts.values())
        codes = sorted(counts)
        weights = torch.tensor([counts[code] / total for code in codes], dtype=torch.float64)
        return Ensemble(weights, [_state(self.statistics, self.statistics.classes[code]) for code in codes])

    def helstrom(self, a: Any, b: Any) -> float:
        """The best success of one measurement of one copy at telling labels a and b, equally likely: ½(1 + D).

        Helstrom 1976; D is the trace distance of the two labels' states.
        """
        pair = [self.statistics.classes[self._code(name)] for name in (a, b)]
        first, second = (_state(self.statistics, moment) for moment in pair)
        best = Measurement.helstrom(first, second, 0.5)
        return float(best.success(Ensemble(torch.tensor([0.5, 0.5], dtype=torch.float64), [first, second])))

    def header(self) -> dict[str, Any]:
        """All but the tensors, for a file."""
        return {
            "names": list(self.names),
            "statistics": self.statistics.header(),
            "estimates": pack(self.estimates),
            "confusion": list(self.confusion),
            "strengths": self.strengths,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        return self.statistics.tensors() | {f"confusion.{kind}": t for kind, t in self.confusion.items()}

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> Knowledge:
        """What `header` and `tensors` described."""
        return cls(
            tuple(header["names"]),
            LabelledStatistics.from_header(header["statistics"], tensors),
            unpack(header["estimates"]),
            {kind: tensors[f"confusion.{kind}"] for kind in header["confusion"]},
            dict(header["strengths"]),
        )

    def _code(self, name: Any) -> int:
        code = self.names.index(name) if name in self.names else -1
        if code not in self.statistics.classes:
            known = ", ".join(str(self.names[c]) for c in sorted(self.statistics.classes))
            raise KeyError(f"No label {name!r} in the fitting part; it has {known}.")
        return code


def knowledge(statistics: LabelledStatistics, names: tuple[Any, ...]) -> Knowledge:
    """Solves and scores the readouts of one layer. Cost O(d³) and a few products of size rows × q × samples."""
    held = statistics.held
    if statistics.cross is not None:
        readout = regress(statistics)
        found = {"linear_r2": score.r_squared(readout.scores(held.kets), held.targets)}
        return Knowledge((), statistics, found, {}, {"linear": readout.strength})
    nothing = {q.name: Estimate(math.nan) for q in CLASS_QUANTITIES}
    if len(statistics.classes) < 2:
        return Knowledge(names, statistics, nothing, {}, {})
    found = dict(nothing)
    found["holevo"], found["holevo_null"] = _holevo(statistics)
    confusions, strengths = {}, {}
    for kind, readout in read_out(statistics, len(names)).items():
        short = {"pretty good": "pgm", "linear": "linear"}[kind]
        strengths[kind] = readout.strength
        if len(held) == 0:
            continue
        scores = readout.scores(held.kets)
        found[f"{short}_accuracy"] = score.accuracy(scores, held.targets)
        found[f"{short}_balanced"] = score.balanced_accuracy(scores, held.targets)
        found[f"{short}_auc"] = score.macro_auc(scores, held.targets)
        confusions[kind] = score.confusion(scores, held.targets)
    return Knowledge(names, statistics, found, confusions, strengths)


def quantities(task: str | None) -> tuple[Any, ...]:
    """The columns that labels of this kind add to a study."""
    if task is None:
        return ()
    return VALUE_QUANTITIES if task == "values" else CLASS_QUANTITIES


def _state(statistics: LabelledStatistics, moment: Moment) -> Density:
    """The state of a sum of kets; complex kets were kept as their real and imaginary parts side by side."""
    factor = moment.factor()
    if factor is not None:
        if statistics.complex:
            half = factor.shape[1] // 2
            factor = torch.complex(factor[:, :half], -factor[:, half:])  # rows are ⟨ψ|
        return Density.from_factor(factor / torch.linalg.matrix_norm(factor))
    matrix = moment.matrix()
    matrix = matrix / matrix.trace()
    if statistics.complex:
        half = matrix.shape[0] // 2
        rr, ri, ii = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
        matrix = torch.complex(rr + ii, ri.T - ri)
    return Density(matrix, False, (matrix.shape[0],))


def _holevo(statistics: LabelledStatistics) -> tuple[Estimate, Estimate]:
    """χ = S(Σ pₖρₖ) − Σ pₖ S(ρₖ) in bits, and what random labels of the same counts would give."""
    moments = list(statistics.classes.values())
    n = sum(moment.n for moment in moments)
    states = [_state(statistics, moment) for moment in moments]
    weights = torch.tensor([moment.n / n for moment in moments], dtype=torch.float64)
    chi = float(holevo(Ensemble(weights, states)))
    null = _null(statistics, [moment.n for moment in moments])
    return Estimate(chi), Estimate(null)


def _null(statistics: LabelledStatistics, counts: list[int]) -> float:
    """Σ pₖ (S_n − S_{nₖ}), where S_m is the mean entropy of m kets drawn whatever their label.

    S_m is measured on subsets of the kept kets (held-out and check samples, a uniform sample of the data)
    and beyond their number continued by S_∞ − c/m, the leading order of its bias.
    """
    kept = torch.cat([statistics.held.kets, statistics.checks.kets])
    if statistics.complex:
        half = kept.shape[1] // 2
        kept = torch.complex(kept[:, :half], kept[:, half:])
    kept = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))]
    r, n = len(kept), sum(counts)
    if r < 4:
        return math.nan
    needed = {count for count in counts if count < r}
    if len(needed) > _NULL_SIZES:
        needed = {round(size) for size in _spread(min(needed), max(needed))}
    sizes = sorted(needed | {r // 2, r})
    curve = {size: _mean_entropy(kept, size) for size in sizes}
    slope = (curve[r] - curve[r // 2]) / (1 / (r // 2) - 1 / r)

    def entropy(m: int) -> float:
        if m >= r:
            return curve[r] + slope * (1 / r - 1 / m)
        above = min(size for size in sizes if size >= m)
        below = max((size for size in sizes if size <= m), default=above)
        if above == below:
            return curve[above]
        share = (math.log(m) - math.log(below)) / (math.log(above) - math.log(below))
        return curve[below] + share * (curve[above] - curve[below])

    whole = entropy(n)
    return sum(count / n * (whole - entropy(count)) for count in counts)


def _spread(least: int, most: int) -> list[float]:
    """Sizes from least to most, spaced by equal factors."""
    return [least * (most / least) ** (i / (_NULL_SIZES - 1)) for i in range(_NULL_SIZES)]


def _mean_entropy(kets: Tensor, size: int) -> float:
    """The entropy of the state of `size` kets, averaged over the disjoint subsets of that size (at most 4)."""
    groups = min(len(kets) // size, 4)
    parts = kets[: groups * size].reshape(groups, size, -1)
    parts = parts.to(torch.complex128 if parts.is_complex() else torch.float64)
    gram = parts @ parts.mH if size < parts.shape[-1] else parts.mH @ parts
    values = torch.linalg.eigvalsh(gram).clamp(min=0) / size
    return float(shannon_entropy(values / values.sum(-1, keepdim=True)).mean())
