"""A layer seen in the plane of its two leading eigenstates, as Bloch vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.measures.decoded import DecodedLabels
from ketwork.networks.measures.state import LayerState

_KETS = 64
_LABELS = 30


@dataclass(frozen=True, eq=False)
class LeadingPlane:
    """States seen in the span of a layer's two leading eigenstates |1⟩ and |2⟩, as Bloch vectors (n, 3).

    A state is projected onto the span and scaled back to trace 1: z = +1 is |1⟩, z = −1 is |2⟩. `weight` is
    the share of the layer's state inside the span, `own` its vector (0, 0, z), `kets` those of single vectors of the
    reservoir (on the sphere), `labels` those of the labels' states (pooled vectors), by label.
    """

    weight: float
    own: Tensor
    kets: Tensor
    labels: dict[Any, Tensor]


def leading_plane(state: LayerState, labels: DecodedLabels | None = None) -> LeadingPlane | None:
    """The plane of a layer's two leading eigenstates, None where there are not two."""
    if not state.exists or len(state.eigenstates) < 2:
        return None
    held = state.eigenvalues / state.eigenvalues.sum()
    accumulator = state.accumulator
    reservoir = accumulator.reservoir
    kets = reservoir.kets[:, 0][reservoir.valid()[:, 0]]
    axes = state.eigenstates[:2]
    axes = axes.to(torch.promote_types(axes.dtype, kets.dtype))
    kets = kets[:_KETS].to(axes.dtype)
    if state.center:
        norms = reservoir.norms[:, 0][reservoir.valid()[:, 0]][:_KETS, None]
        scale = norms.to(axes.dtype) if state.normalize == "ensemble" else 1
        kets = kets * scale - state.mean.to(axes.dtype)
    amplitudes = kets @ axes.mH  # (n, 2)
    both = amplitudes[:, :, None] * amplitudes.conj()[:, None, :]  # (n, 2, 2)
    own = torch.diag(held[:2]).to(axes.dtype)
    return LeadingPlane(
        float(held[:2].sum()),
        _bloch(own[None])[0],
        _bloch(both),
        {} if state.center else _labels(labels, axes),
    )


def _labels(labels: DecodedLabels | None, axes: Tensor) -> dict[Any, Tensor]:
    if labels is None or not 1 < len(labels.names) <= _LABELS:
        return {}
    vectors = {}
    for name in labels.labels:
        rho = labels.state(name)
        data = rho.data.to(torch.promote_types(rho.data.dtype, axes.dtype))
        inside = data @ axes.to(data.dtype).mT  # (r, 2) of a factor, else (d, 2)
        vector = _bloch((inside.mH @ inside if rho.factored else axes.to(data.dtype).conj() @ inside)[None])
        if len(vector):
            vectors[name] = vector[0]
    return vectors


def _bloch(matrices: Tensor) -> Tensor:
    """Bloch vectors (n, 3) of unnormalised 2 × 2 states; those without weight are skipped."""
    weight = matrices.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    matrices = matrices[weight > 1e-12]
    weight = weight[weight > 1e-12]
    off = matrices[:, 0, 1]
    y = -2 * off.imag if off.is_complex() else torch.zeros_like(off)
    z = (matrices[:, 0, 0] - matrices[:, 1, 1]).real
    return torch.stack([2 * off.real, y, z], dim=-1).double() / weight[:, None].double()
