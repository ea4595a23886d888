"""A layer seen in the plane of its two leading eigenstates, as Bloch vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ketwork.networks.measures.decoded import DecodedLabels
from ketwork.networks.moments import LayerAccumulator, LeadingStates
from ketwork.records import Form, Malformed

_KETS = 64
_LABELS = 30


@dataclass(frozen=True, eq=False)
class LeadingPlane:
    """States seen in the span of a layer's two leading eigenstates |1⟩ and |2⟩, as Bloch vectors (n, 3).

    A state is projected onto the span and scaled back to trace 1: z = +1 is |1⟩, z = −1 is |2⟩. `weight` is
    the share of the layer's state inside the span, `own` its vector (0, 0, z), `kets` those of single vectors of the
    reservoir (on the sphere), `vectors` those of the labels' states (pooled vectors), of the labels `names`.
    """

    weight: float
    own: Annotated[Tensor, Form("real three")]
    kets: Annotated[Tensor, Form("real n three")]
    names: list[str | int | bool]
    vectors: Annotated[Tensor, Form("real m three")]

    @property
    def labels(self) -> dict[Any, Tensor]:
        """The vectors of the labels' states, by label."""
        return dict(zip(self.names, self.vectors, strict=True))

    @property
    def sizes(self) -> dict[str, int]:
        """Bloch vectors have three components, and each label has one."""
        return {"three": 3, "m": len(self.names)}

    def check(self) -> None:
        """The weight is a share."""
        if not 0 <= self.weight <= 1 + 1e-9:
            raise Malformed(f"a plane cannot hold the share {self.weight} of a state")


def leading_plane(
    leading: LeadingStates,
    accumulator: LayerAccumulator,
    normalize: str,
    mean: Tensor,
    labels: DecodedLabels | None = None,
) -> LeadingPlane | None:
    """The plane of a layer's two leading eigenstates, None where there are not two; `mean` (d,) is that of its kets."""
    if len(leading.states) < 2:
        return None
    held = leading.values[: leading.held]
    held = held / held.sum()
    reservoir = accumulator.reservoir
    kets = reservoir.kets[:, 0][reservoir.valid()[:, 0]]
    axes = leading.states[:2]
    axes = axes.to(torch.promote_types(axes.dtype, kets.dtype))
    kets = kets[:_KETS].to(axes.dtype)
    if leading.center:
        norms = reservoir.norms[:, 0][reservoir.valid()[:, 0]][:_KETS, None]
        scale = norms.to(axes.dtype) if normalize == "ensemble" else 1
        kets = kets * scale - mean.to(axes.dtype)
    amplitudes = kets @ axes.mH  # (n, 2)
    both = amplitudes[:, :, None] * amplitudes.conj()[:, None, :]  # (n, 2, 2)
    own = torch.diag(held[:2]).to(axes.dtype)
    inside = _bloch(both)
    named = {} if leading.center else _labels(labels, axes)
    vectors = torch.stack([*named.values()]) if named else inside[:0]
    return LeadingPlane(float(held[:2].sum()), _bloch(own[None])[0], inside, list(named), vectors)


def _labels(labels: DecodedLabels | None, axes: Tensor) -> dict[Any, Tensor]:
    if labels is None or not 1 < len(labels.names) <= _LABELS:
        return {}
    vectors = {}
    for name, rho in labels.states().items():
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
