"""What is measured of a layer (directions, neurons, positions), and what each mode makes of its activations.

A `Question` names m outcomes with orthogonal projectors Pₖ; what they leave over, 1 − Σ Pₖ, is one outcome more.
Every mode continues with Σ wₖ Pₖ a with weights w of its own, scaled back to the norm of a.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ketwork.networks.activations import decode, encode
from ketwork.quantum import Ket, Measurement

MODES = ("project", "sample", "dephase", "remove")
DRAWING = ("sample", "dephase")
"""The modes that draw at random: outcomes, or phases."""


@dataclass(frozen=True)
class Positions:
    """A region of positions (tokens, pixels), to be measured by `collapse`.

    `which` is a slice or a list of indices into the positions, counted row by row where they have several axes,
    or a boolean mask in their shape. What is measured is a sample's ket over positions ⊗ features, so the norm of
    the whole sample is what is restored.
    """

    which: slice | Sequence[int] | Tensor


Target = int | Tensor | np.ndarray | Ket | Measurement | tuple[Measurement, int] | Sequence[int] | Positions
"""What is measured of a layer, see `ketwork.collapse`."""


class Question(ABC):
    """A measurement of activations (N, T, d)."""

    @abstractmethod
    def check(self, values: Tensor, positions: bool) -> None:
        """Raises ValueError where such activations cannot be measured so."""

    @abstractmethod
    def collapse(
        self, values: Tensor, mode: str, generator: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the network continues with, (N, T, d), and the outcomes; None where nothing changes, or is drawn."""


class Projective(Question):
    """Outcomes with orthogonal projectors; `over` are the axes that make up one ket."""

    over: tuple[int, ...] = (-1,)

    @abstractmethod
    def chosen(self, values: Tensor) -> Tensor:
        """Which of the m outcomes "project" keeps and "remove" takes away, boolean (m,)."""

    @abstractmethod
    def complete(self, values: Tensor) -> bool:
        """Whether the outcomes leave nothing over."""

    @abstractmethod
    def parts(self, values: Tensor) -> Tensor:
        """‖Pₖ a‖², (N, T, m), or (N, m) for kets over positions."""

    @abstractmethod
    def combine(self, values: Tensor, weights: Tensor) -> Tensor:
        """Σ wₖ Pₖ a for weights (…, m + 1), the last one for what is left over."""

    def collapse(
        self, values: Tensor, mode: str, generator: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None]:
        """See `ketwork.collapse` for the modes. A ket of which nothing is left becomes 0."""
        chosen = self.chosen(values)
        outcome = None
        if mode == "project":
            if bool(chosen.all()) and self.complete(values):
                return None, None
            weights = torch.cat([chosen, chosen.new_zeros(1)])
        elif mode == "remove":
            weights = torch.cat([~chosen, chosen.new_ones(1)])
        elif mode == "sample":
            outcome = self._draw(values.detach(), generator)
            weights = one_hot(outcome, len(chosen) + 1)
        else:
            weights = _phases((*self._kets(values), len(chosen) + 1), values, generator)
        return _rescaled(self.combine(values, weights.to(values.dtype)), values, self.over), outcome

    def _draw(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Outcomes by Born's rule: the ket of amplitudes ‖Pₖ a‖, measured in its own basis."""
        parts = self.parts(values)
        if not self.complete(values):
            total = torch.linalg.vector_norm(values, dim=self.over, keepdim=True).square()
            rest = total.flatten(-len(self.over)) - parts.sum(-1, keepdim=True)
            parts = torch.cat([parts, rest.clamp(min=0)], dim=-1)
        return encode(parts.sqrt())[0].measure(seed=generator)

    def _kets(self, values: Tensor) -> torch.Size:
        return values.shape[: values.ndim - len(self.over)]


@dataclass(frozen=True)
class Directions(Projective):
    """Subspaces of features: outcome k is the span of the rows ⟨b|, orthonormal or zero, of `rows[k]` (m, r, d)."""

    rows: Tensor
    only: int | None = None

    def check(self, values: Tensor, positions: bool) -> None:
        """The number of features must agree, and real activations need real directions."""
        if values.shape[-1] != self.rows.shape[-1]:
            raise ValueError(
                f"it has {values.shape[-1]} features, but is measured in {self.rows.shape[-1]} dimensions"
            )
        if self.rows.is_complex() and not values.is_complex():
            raise ValueError("its activations are real, but the directions are complex")

    def chosen(self, values: Tensor) -> Tensor:
        """All outcomes, or the one that was named."""
        every = torch.arange(len(self.rows), device=values.device)
        return every >= 0 if self.only is None else every == self.only

    def complete(self, values: Tensor) -> bool:
        """Whether there are as many directions as features."""
        return int(self.rows.abs().amax(-1).count_nonzero()) == self.rows.shape[-1]

    def parts(self, values: Tensor) -> Tensor:
        """Σ |⟨b|a⟩|² over the rows of each outcome."""
        return self._amplitudes(values).abs().square().sum(-1)

    def combine(self, values: Tensor, weights: Tensor) -> Tensor:
        """Σ wₖ Σ_b |b⟩⟨b|a⟩, and the weighed rest of a."""
        kets = self.rows.to(values).flatten(0, 1).conj()
        amplitudes = self._amplitudes(values)
        image = (amplitudes * weights[..., :-1, None]).flatten(-2) @ kets
        rest = weights[..., -1:]
        return image + rest * (values - amplitudes.flatten(-2) @ kets) if bool(rest.any()) else image

    def _amplitudes(self, values: Tensor) -> Tensor:
        rows = self.rows.to(values)
        return (values @ rows.flatten(0, 1).mT).unflatten(-1, rows.shape[:2])  # (N, T, m, r)


@dataclass(frozen=True)
class Neurons(Projective):
    """Features by index, each one an outcome."""

    which: tuple[int, ...]

    def check(self, values: Tensor, positions: bool) -> None:
        """Every index must be that of a feature."""
        _inside(self.which, values.shape[-1], "neurons")

    def chosen(self, values: Tensor) -> Tensor:
        """All that were named."""
        return torch.ones(len(self.which), dtype=torch.bool, device=values.device)

    def complete(self, values: Tensor) -> bool:
        """Whether every feature was named."""
        return len(self.which) == values.shape[-1]

    def parts(self, values: Tensor) -> Tensor:
        """|aⱼ|² of each neuron."""
        return values[..., list(self.which)].abs().square()

    def combine(self, values: Tensor, weights: Tensor) -> Tensor:
        """Each feature times its weight."""
        return values * _spread(weights, self.which, values.shape[-1])


@dataclass(frozen=True)
class Region(Projective):
    """Positions, each one an outcome of a measurement of the sample's ket over positions and features."""

    region: Positions
    over = (-2, -1)

    def check(self, values: Tensor, positions: bool) -> None:
        """There must be positions, and these among them."""
        if not positions:
            raise ValueError("it has no positions, but a region of them is to be measured")
        which = self.region.which
        if isinstance(which, Tensor) and which.dtype == torch.bool:
            if which.numel() != values.shape[1]:
                raise ValueError(
                    f"it has {values.shape[1]} positions, but the mask of `Positions` has {which.numel()}"
                )
        elif not isinstance(which, slice):
            _inside(self._index(values), values.shape[1], "positions")

    def chosen(self, values: Tensor) -> Tensor:
        """All that were named."""
        return torch.ones(len(self._index(values)), dtype=torch.bool, device=values.device)

    def complete(self, values: Tensor) -> bool:
        """Whether every position was named."""
        return len(self._index(values)) == values.shape[1]

    def parts(self, values: Tensor) -> Tensor:
        """‖a_t‖² of each position."""
        return values[:, list(self._index(values))].abs().square().sum(-1)

    def combine(self, values: Tensor, weights: Tensor) -> Tensor:
        """Each position times its weight."""
        return values * _spread(weights, self._index(values), values.shape[1])[..., None]

    def _index(self, values: Tensor) -> tuple[int, ...]:
        which = self.region.which
        if isinstance(which, slice):
            return tuple(range(values.shape[1])[which])
        if isinstance(which, Tensor) and which.dtype == torch.bool:
            return tuple(which.flatten().nonzero().squeeze(1).tolist())
        return tuple(int(i) for i in which)


@dataclass(frozen=True)
class General(Question):
    """A measurement whose effects are no projectors: it can only be sampled, by Lüders's rule."""

    measurement: Measurement

    def check(self, values: Tensor, positions: bool) -> None:
        """The number of features must agree."""
        Directions(self.measurement.operators).check(values, positions)

    def collapse(
        self, values: Tensor, mode: str, generator: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None]:
        """√Eₖ a, at the norm of a, for an outcome k drawn by Born's rule."""
        ket, norm = encode(values)
        outcome, after = Measurement(
            self.measurement.operators.to(values), self.measurement.shares_rest
        ).measure(ket, seed=generator)
        assert isinstance(after, Ket)
        return decode(after, norm).to(values.dtype), outcome


def question(target: Target, mode: str, layer: str) -> Question:
    """The measurement that a target names in that mode; a rank is not settled here, since it needs a study.

    Raises:
        TypeError, ValueError: it is none of these, or does not go with the mode.
    """
    if isinstance(target, Measurement):
        return _measured(target, None, mode, layer)
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], Measurement):
        return _measured(target[0], target[1], mode, layer)
    if isinstance(target, Positions):
        return Region(target)
    if isinstance(target, Ket):
        kets = target.amplitudes
        return _basis(kets[:, None] if kets.ndim == 1 else kets.mT, layer)
    if isinstance(target, np.ndarray):
        target = torch.from_numpy(target)
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex():
            return _basis(target, layer)
        target = (
            target.flatten().nonzero().squeeze(1).tolist() if target.dtype == torch.bool else target.tolist()
        )
    if isinstance(target, Sequence) and not isinstance(target, str) and all(_is_index(i) for i in target):
        return Neurons(tuple(target))  # type: ignore[arg-type]
    raise TypeError(
        f"The target of layer {layer!r} must be a rank, an orthonormal basis (d, k), a Ket, a Measurement, a pair "
        f"(Measurement, outcome), the indices of neurons, or Positions, but is {target!r}."
    )


def directions(kets: Ket) -> Directions:
    """One outcome for each of orthonormal kets (k, d)."""
    return Directions(kets.amplitudes.conj().unsqueeze(1))


def _is_index(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _basis(basis: Tensor, layer: str) -> Directions:
    if basis.ndim != 2 or not 1 <= basis.shape[1] <= basis.shape[0]:
        raise ValueError(
            f"The basis for layer {layer!r} must have shape (d, k), its k ≤ d directions as columns, but has shape "
            f"{tuple(basis.shape)}."
        )
    basis = basis.detach()
    if basis.dtype in (torch.float16, torch.bfloat16):
        basis = basis.float()
    off = (basis.mH @ basis - torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)).abs().max()
    allowed = math.sqrt(torch.finfo(basis.dtype).eps)
    if not off <= allowed:
        raise ValueError(
            f"The basis for layer {layer!r} must have orthonormal columns, but they are off by {float(off):.2g} where "
            f"{allowed:.2g} is allowed. Use `torch.linalg.qr(basis).Q`."
        )
    return Directions(basis.mH.unsqueeze(1))


def _measured(measurement: Measurement, outcome: int | None, mode: str, layer: str) -> Question:
    one = mode in ("project", "remove")
    if one and outcome is None:
        raise ValueError(
            f"Mode {mode!r} needs an outcome of the measurement of layer {layer!r}. Give the pair (measurement, "
            "outcome), or use mode='sample' to draw one."
        )
    if not one and outcome is not None:
        raise ValueError(
            f"Mode {mode!r} takes no outcome, but layer {layer!r} is given {outcome}. Give the measurement alone."
        )
    if outcome is not None and not 0 <= outcome < len(measurement):
        raise ValueError(
            f"The outcome for layer {layer!r} must lie in 0 … {len(measurement) - 1}, but is {outcome}."
        )
    rows = measurement.operators.flatten(0, 1)
    gram = rows @ rows.mH
    near = math.sqrt(torch.finfo(rows.dtype).eps)
    lengths = gram.diagonal().real
    units = torch.where(lengths > 0.5, 1.0, 0.0).to(gram.dtype)
    if not measurement.shares_rest and bool(((gram - torch.diag(units)).abs() < near).all()):
        return Directions(measurement.operators, outcome)
    if mode != "sample":
        raise ValueError(
            f"Mode {mode!r} needs a projective measurement, but the effects of that of layer {layer!r} are no "
            "projectors. Use mode='sample', or `Measurement.projective(basis)`."
        )
    return General(measurement)


def _inside(index: Sequence[int], size: int, kind: str) -> None:
    if not index or len(set(index)) < len(index) or not all(0 <= i < size for i in index):
        raise ValueError(
            f"its {kind} have indices 0 … {size - 1}, of which some must be named, each once, but they are "
            f"{list(index)[:8]}"
        )


def _spread(weights: Tensor, index: Sequence[int], size: int) -> Tensor:
    """The weights (…, m + 1) of m indices and of the rest, at each of `size` places."""
    spread = weights[..., -1:].expand(*weights.shape[:-1], size).clone()
    spread[..., list(index)] = weights[..., :-1]
    return spread


def _phases(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Phases uniform on the circle, or signs for real kets."""
    real = torch.rand(shape, generator=generator, dtype=torch.float64, device=like.device)
    if like.is_complex():
        return torch.polar(torch.ones_like(real), 2 * math.pi * real)
    return torch.where(real < 0.5, -1.0, 1.0)


def _rescaled(after: Tensor, before: Tensor, over: tuple[int, ...]) -> Tensor:
    """The kets of `after` at the norms of `before`; 0 where no more than rounding is left of them."""
    norm = torch.linalg.vector_norm(before, dim=over, keepdim=True)
    left = torch.linalg.vector_norm(after, dim=over, keepdim=True)
    size = math.prod(before.shape[axis] for axis in over)
    rounding = (math.sqrt(size) + 8) * torch.finfo(
        norm.dtype
    ).eps  # of √size products summed, and a few more steps
    gone = left <= rounding * norm  # NaN is not: it goes on as it is
    return torch.where(gone, 0.0, after * (norm / torch.where(gone, 1.0, left)))
