"""What a report shows of one layer beyond its row: its spectrum, its labels' confusion, its two leading eigenstates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.measures import readings
from ketwork.networks.measures.bounds import Interval, Known
from ketwork.networks.measures.knowledge import Knowledge
from ketwork.networks.study.layer import NONE, Layer
from ketwork.networks.study.result import Study
from ketwork.quantum import Estimate
from ketwork.report.terminal import plus_minus

KEPT = 0.99
"""The share of a layer's weight that its `rank_kept` leading eigenstates carry."""

FEW_KETS = 10
"""Kets a dimension, below which entropy and effective rank are visibly limited by the data."""

SHARES = (
    "dead",
    "zero",
    "coherent_share",
    *(f"{kind}_{score}" for kind in ("pgm", "linear") for score in ("accuracy", "balanced")),
)
"""Quantities that are told in per cent."""

_SHOWN_RANKS = 48
_SHOWN_KETS = 64
_SHOWN_LABELS = 30
_SHOWN_CONFUSIONS = 20


@dataclass(frozen=True, eq=False)
class Ball:
    """States seen in the span of a layer's two leading eigenstates |1⟩ and |2⟩, as Bloch vectors (n, 3).

    A state is projected onto the span and scaled back to trace 1: z = +1 is |1⟩, z = −1 is |2⟩. `weight` is
    the share of the layer's state inside the span, `own` its vector (0, 0, z), `kets` those of single kets of the
    reservoir (on the sphere), `labels` those of the labels' states (pooled kets), by name.
    """

    weight: float
    own: Tensor
    kets: Tensor
    labels: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class View:
    """A layer as a page shows it: its place along the depth (from 0), its label, its row, and its spectrum (r,).

    `certain` says between which spectra that lies where the layer is sketched.
    """

    place: int
    label: str
    layer: Layer
    spectrum: Tensor
    ball: Ball | None
    label_names: tuple[str, ...] | None = None
    certain: Known | None = None

    def __getitem__(self, quantity: str) -> Estimate:
        if quantity == "rank_kept" and self.rank_kept is not None:
            return Estimate(float(self.rank_kept), bounds=self._rank_bounds)
        if quantity == "coherent_share":
            return Estimate(self.coherent_share, bounds=self._share_bounds)
        return self.layer.all_estimates.get(quantity, NONE)

    def has(self, *quantities: str) -> bool:
        """Whether the layer has a value of each."""
        return all(math.isfinite(self[quantity].value) for quantity in quantities)

    def told(self, quantity: str) -> str:
        """A quantity in words, ± its standard error, shares in per cent."""
        estimate = self[quantity]
        if quantity == "rank_kept":
            return estimate.words("{:.0f}".format)
        if quantity not in SHARES or math.isnan(estimate.value):
            return plus_minus([estimate])[0].strip()
        value, error = estimate.words(_percent), _percent(estimate.stderr)
        return f"{value} %" if math.isnan(estimate.stderr) else f"{value} ± {error} %"

    @property
    def few_kets(self) -> bool:
        """Whether its numbers are limited by the data."""
        return self.layer.kets < FEW_KETS * self.layer.d

    @property
    def rank_kept(self) -> int | None:
        """How many leading eigenstates carry 99 % of the weight; None without a state."""
        return _rank_kept(self.spectrum) if len(self.spectrum) else None

    @property
    def _rank_bounds(self) -> Interval | None:
        if self.certain is None:
            return None
        return _rank_kept(self.certain.purest), _rank_kept(self.certain.most_mixed)

    @property
    def discarded(self) -> Tensor:
        """1 − Σ λ of the k largest eigenvalues, (r,), for k = 1 … r."""
        return _discarded(self.spectrum)

    @property
    def coherent_share(self) -> float:
        """Coherence over S(diag ρ), the entropy in the neuron basis: 0 if the eigenstates are single neurons."""
        total = self["entropy"].value + self["coherence"].value
        return self["coherence"].value / total if total > 1e-9 else math.nan

    @property
    def _share_bounds(self) -> Interval | None:
        total, bounds = self["entropy"].value + self["coherence"].value, self["coherence"].bounds
        return (bounds[0] / total, bounds[1] / total) if bounds is not None and total > 1e-9 else None

    @property
    def dead_neurons(self) -> int:
        """How many neurons were exactly 0 on every ket."""
        return round(self["dead"].value * self.layer.d)

    @property
    def confusion(self) -> dict[str, Any] | None:
        """Counts on held-out samples by readout: the whole matrix of up to 30 labels, else the commonest errors."""
        known = self.layer.knowledge
        if known is None or not known.confusion:
            return None
        names, order = named(known, self.label_names)
        labels = [names[i] for i in order]
        counts = {kind: matrix[order][:, order] for kind, matrix in sorted(known.confusion.items())}
        if len(labels) <= _SHOWN_LABELS:
            return {"labels": labels, "counts": {kind: matrix.tolist() for kind, matrix in counts.items()}}
        return {"worst": {kind: _worst(matrix, labels) for kind, matrix in counts.items()}}

    def ranks(self) -> list[int]:
        """The ranks that a picture of the spectrum shows: all of few, else spaced by equal factors."""
        r = len(self.spectrum)
        if r <= _SHOWN_RANKS:
            return list(range(1, r + 1))
        return sorted({round(r ** (i / (_SHOWN_RANKS - 1))) for i in range(_SHOWN_RANKS)})


def views(study: Study) -> Iterator[View]:
    """A view of each layer. Cost: one decomposition a layer, O(min(d, N)² d)."""
    data = study.settings.get("source", {}).get("data", {})
    names = tuple(data["label_names"]) if data.get("label_names") else None
    for place, layer in enumerate(study):
        label = layer.name or study.settings.get("model", "network")
        if layer.call > 0:
            label = f"{label} (call {layer.call + 1})"
        # A layer whose activations were all zero has no state, which its entropy says.
        if math.isnan(layer.estimates["entropy"].value):
            yield View(place, label, layer, torch.zeros(0, dtype=torch.float64), None, names)
            continue
        rho = layer.density
        values, states = rho.eigenstates(min(rho.data.shape[-2:]))
        certain = readings.known(layer.statistics, values, layer.center)
        values = values.clamp(min=0) / values.clamp(min=0).sum()
        ball = _ball(layer, values, states.amplitudes[:2], names) if len(values) > 1 else None
        spectrum = values if certain is None else certain.middle
        yield View(place, label, layer, spectrum, ball, names, certain)


def _discarded(spectrum: Tensor) -> Tensor:
    return spectrum.flip(0).cumsum(0).flip(0) - spectrum


def _rank_kept(spectrum: Tensor) -> int:
    return 1 + int((_discarded(spectrum) > 1 - KEPT + 1e-12).sum())


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def named(known: Knowledge, label_names: tuple[str, ...] | None) -> tuple[list[str], list[int]]:
    """The labels' names in the order of their codes, and the codes in the order of a reader."""
    names = list(known.names)
    numbers = all(isinstance(name, int | float) for name in names)
    order = sorted(range(len(names)), key=lambda code: names[code] if numbers else str(names[code]))
    if label_names and all(isinstance(name, int) and 0 <= name < len(label_names) for name in names):
        names = [label_names[name] for name in names]
    return [str(name) for name in names], order


def _ball(layer: Layer, values: Tensor, axes: Tensor, label_names: tuple[str, ...] | None) -> Ball:
    moment, reservoir = layer.statistics.moment, layer.statistics.reservoir
    kets = reservoir.kets[:, 0][reservoir.valid()[:, 0]]
    axes = axes.to(torch.promote_types(axes.dtype, kets.dtype))
    kets = kets[:_SHOWN_KETS].to(axes.dtype)
    if layer.center:
        first = reservoir.norms[:, 0][reservoir.valid()[:, 0]][:_SHOWN_KETS, None]
        scale = first.to(axes.dtype) if layer.normalize == "ensemble" else 1
        kets = kets * scale - moment.first.to(axes.dtype) / moment.n
    amplitudes = kets @ axes.mH  # (n, 2)
    both = amplitudes[:, :, None] * amplitudes.conj()[:, None, :]  # (n, 2, 2)
    own = torch.diag(values[:2]).to(axes.dtype)
    weight = float(values[:2].sum())
    return Ball(weight, _bloch(own[None])[0], _bloch(both), _labels(layer, axes, label_names))


def _labels(layer: Layer, axes: Tensor, label_names: tuple[str, ...] | None) -> dict[str, Tensor]:
    known = layer.knowledge
    if known is None or layer.center or not 1 < len(known.names) <= _SHOWN_LABELS:
        return {}
    names, order = named(known, label_names)
    present = known.labels
    found = {}
    for code in order:
        if known.names[code] not in present:
            continue
        rho = known.state(known.names[code])
        data = rho.data.to(torch.promote_types(rho.data.dtype, axes.dtype))
        seen = data @ axes.to(data.dtype).mT  # (r, 2) of a factor, else (d, 2)
        vector = _bloch((seen.mH @ seen if rho.factored else axes.to(data.dtype).conj() @ seen)[None])
        if len(vector):
            found[names[code]] = vector[0]
    return found


def _bloch(matrices: Tensor) -> Tensor:
    """Bloch vectors (n, 3) of unnormalised 2 × 2 states; those without weight are left out."""
    weight = matrices.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    matrices = matrices[weight > 1e-12]
    weight = weight[weight > 1e-12]
    off = matrices[:, 0, 1]
    y = -2 * off.imag if off.is_complex() else torch.zeros_like(off)
    z = (matrices[:, 0, 0] - matrices[:, 1, 1]).real
    return torch.stack([2 * off.real, y, z], dim=-1).double() / weight[:, None].double()


def _worst(matrix: Tensor, labels: list[str]) -> list[dict[str, Any]]:
    wrong = matrix.clone()
    wrong.fill_diagonal_(0)
    counts, places = wrong.flatten().topk(min(_SHOWN_CONFUSIONS, wrong.numel()))
    k = len(labels)
    return [
        {"label": labels[place // k], "read": labels[place % k], "count": int(count)}
        for count, place in zip(counts, places.tolist(), strict=True)
        if count > 0
    ]
