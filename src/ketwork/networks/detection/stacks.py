"""`Stack`: layers of one shape, whose kets are scored together with the same few products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.detection.spaces import Distances, Eigenspace

Parts = tuple[Eigenspace, Distances | None, Distances | None]
"""The state of a layer, its distances to class means and to the common one."""

BY_CLASS = ("mahalanobis", "relative")
LABEL_FREE = ("typicality", "residual")
METHODS = (*BY_CLASS, *LABEL_FREE)
"""What is scored of a ket; see `Study.detector`."""


@dataclass(frozen=True)
class States:
    """The eigenstates of L layers in columns, `kets` (L, d, d), their eigenvalues `values` (L, d, 1).

    `leading` (L, d, 1) is 1 for those of the leading eigenspace; `shrinkage` (L, 1, 1).
    """

    kets: Tensor
    values: Tensor
    leading: Tensor
    shrinkage: Tensor

    @classmethod
    def from_spaces(cls, spaces: Sequence[Eigenspace]) -> States:
        """Those of these layers."""
        values = _joined([space.values for space in spaces])[..., None]
        ranks = torch.tensor([space.rank for space in spaces], device=values.device)[:, None, None]
        leading = (torch.arange(values.shape[1], device=values.device)[:, None] < ranks).to(values)
        shrinkage = values.new_tensor([space.shrinkage for space in spaces])[:, None, None]
        return cls(_joined([space.vectors for space in spaces]), values, leading, shrinkage)

    def populations(self, kets: Tensor) -> Tensor:
        """|⟨j|ψ⟩|² of kets (L, n, d) and eigenstates j, (L, n, d). Cost O(L n d²)."""
        return (kets.to(self.kets) @ self.kets.conj()).abs().square()

    def typicality(self, populations: Tensor) -> Tensor:
        """−log₂ of the Born probability under the mixed ρ, and −log₂ of that of the leading eigenspace, added, (L, n).

        `populations` (L, n, d) are |⟨j|ψ⟩|² of the eigenstates.
        """
        d, tiny = populations.shape[-1], torch.finfo(populations.dtype).tiny
        mixed = (1 - self.shrinkage) * self.values + self.shrinkage / d
        born = populations @ torch.cat([mixed, self.leading], dim=-1)
        return -born.clamp(min=tiny).log2().sum(dim=-1)

    def residual(self, populations: Tensor) -> Tensor:
        """The norm outside the leading eigenspace, (L, n)."""
        return (populations @ (1 - self.leading))[..., 0].sqrt()


@dataclass(frozen=True)
class Centres:
    """Class means (L, K, d) of the classes `codes` (L, K) under whitenings (L, d, d): distances to them."""

    means: Tensor
    codes: Tensor
    whitening: Tensor

    @classmethod
    def from_distances(cls, distances: Sequence[Distances]) -> Centres:
        """Those of these layers."""
        means = _joined([each.means for each in distances])
        codes = _joined([each.codes.to(means.device) for each in distances])
        return cls(means, codes, _joined([each.whitening for each in distances]))

    @cached_property
    def _placed(self) -> tuple[Tensor, Tensor]:
        """The common origins, and the whitened means about them."""
        origin = self.means.mean(dim=1, keepdim=True)
        return origin, (self.means - origin) @ self.whitening

    def squared(self, kets: Tensor) -> Tensor:
        """‖(x − μ_k) W‖² of kets (L, n, d), (L, n, K). Cost O(L n (d² + K d))."""
        origin, centres = self._placed
        points = (kets.to(self.means) - origin) @ self.whitening
        # By differences: the squares of both, less twice their product, would lose digits.
        return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


@dataclass(frozen=True)
class Stack:
    """L layers at their `places`: `states`, and distances to class means and to the common one, or neither."""

    places: tuple[int, ...]
    states: States
    classes: Centres | None
    overall: Centres | None

    @classmethod
    def from_parts(cls, places: Sequence[int], parts: Sequence[Parts]) -> Stack:
        """The stack of layers of one shape."""
        classes, overall = (
            Centres.from_distances(distances) if (distances := [x for x in each if x is not None]) else None
            for each in ([part[1] for part in parts], [part[2] for part in parts])
        )
        return cls(tuple(places), States.from_spaces([part[0] for part in parts]), classes, overall)

    def scores(self, kets: Tensor, methods: Sequence[str]) -> tuple[dict[str, Tensor], Tensor | None]:
        """The scores of mean-pooled kets (L, n, d) by each method, (L, n), and the nearest class, if it is computed."""
        result: dict[str, Tensor] = {}
        nearest = None
        if self.classes is not None and self.overall is not None and set(methods) & set(BY_CLASS):
            least = self.classes.squared(kets).min(dim=-1)
            nearest = self.classes.codes.gather(1, least.indices)
            result["mahalanobis"] = least.values
            if "relative" in methods:
                result["relative"] = least.values - self.overall.squared(kets)[..., 0]
        if set(methods) & set(LABEL_FREE):
            populations = self.states.populations(kets)
            result["typicality"] = self.states.typicality(populations)
            result["residual"] = self.states.residual(populations)
        return {method: result[method] for method in methods if method in result}, nearest


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor of all of them; a view where there is one."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
