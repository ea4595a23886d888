"""What one layer is compared with: class means and covariances of its kets, and the eigenstates of its state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import msgspec
import torch
from torch import Tensor

from ketwork.networks.activations import Activation, LayerInfo, unit
from ketwork.networks.detection.shrinkage import Covariance, edge, whitening
from ketwork.networks.moments import pooled
from ketwork.records import Count, Form, Malformed

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A number between 0 and 1."""

BY_CLASS = ("mahalanobis", "relative")
LABEL_FREE = ("typicality", "residual")
METHODS = (*BY_CLASS, *LABEL_FREE)
"""What is scored of a ket; see `Study.detector`."""

MEAN, WORST = "mean", "worst"
"""Of a sample with several positions: their mean is scored as one ket, or each is and the largest score counts."""


@dataclass(frozen=True)
class Distances:
    """Means (k, d), of the classes with these codes (k,), and a whitening (d, d): distances of kets to the means.

    `shrinkage` is the weight of the maximally mixed state in the covariance.
    """

    means: Annotated[Tensor, Form("real k d")]
    codes: Annotated[Tensor, Form("int k")]
    whitening: Annotated[Tensor, Form("real d d")]
    shrinkage: Share

    def check(self) -> None:
        """There is a mean."""
        if not len(self.means):
            raise Malformed("distances must be to one mean at least")

    @classmethod
    def from_covariance(
        cls, means: Tensor, codes: Tensor, covariance: Tensor, shrinkage: float, like: Tensor
    ) -> Distances:
        """The distances under a covariance that was shrunk so much, computed in the precision of `like`."""
        return cls(means.to(like).contiguous(), codes, whitening(covariance).to(like).contiguous(), shrinkage)

    @cached_property
    def _placed(self) -> tuple[Tensor, Tensor]:
        """The common origin, and the whitened means about it."""
        origin = self.means.mean(dim=0)
        return origin, (self.means - origin) @ self.whitening

    def squared(self, kets: Tensor) -> Tensor:
        """‖(x − μ_k) W‖² of kets (n, d), (n, k). Cost O(n d² + n k d)."""
        origin, centres = self._placed
        points = (kets.to(self.means) - origin) @ self.whitening
        # By differences: the squares of both, less twice their product, would lose digits.
        return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").square()


@dataclass(frozen=True)
class Eigenspace:
    """A state ρ by its eigenvalues (d,), the largest first, and eigenstates in columns (d, d).

    `rank` of them lie above the bulk of noise: the leading eigenspace. `shrinkage` is the weight of the maximally mixed
    state that ρ is mixed with.
    """

    values: Annotated[Tensor, Form("real d")]
    vectors: Annotated[Tensor, Form("ket d d")]
    rank: Count
    shrinkage: Share

    def check(self) -> None:
        """The leading eigenspace is a part of the space."""
        if not 0 < self.rank <= len(self.values):
            raise Malformed(
                f"a leading eigenspace of {len(self.values)} features cannot have rank {self.rank}"
            )

    @classmethod
    def from_state(cls, rho: Covariance, like: Tensor) -> Eigenspace:
        """The eigenstates of ρ, those above the edge of the bulk leading. Cost O(d³)."""
        values, vectors = rho.eigen()
        values = values / values.sum()
        rank = max(1, int((values > edge(values, rho.n)).sum()))
        kets = vectors.to(like) if vectors.is_complex() == like.is_complex() else vectors.to(_complex(like))
        return cls(values.to(like.real.dtype).contiguous(), kets.contiguous(), rank, rho.shrinkage)

    def typicality(self, populations: Tensor) -> Tensor:
        """−log₂ of the Born probability under the mixed ρ, and −log₂ of that of the leading eigenspace, added, (n,).

        `populations` (n, d) are |⟨j|ψ⟩|² of the eigenstates.
        """
        d, weight = len(self.values), self.shrinkage
        born = (1 - weight) * (populations @ self.values) + weight / d * populations.sum(dim=1)
        inside = populations[:, : self.rank].sum(dim=1)
        tiny = torch.finfo(born.dtype).tiny
        return -born.clamp(min=tiny).log2() - inside.clamp(min=tiny).log2()

    def residual(self, populations: Tensor) -> Tensor:
        """The norm outside the leading eigenspace, (n,)."""
        return populations[:, self.rank :].sum(dim=1).sqrt()

    def populations(self, kets: Tensor) -> Tensor:
        """|⟨j|ψ⟩|² of kets (n, d) and eigenstates j, (n, d). Cost O(n d²)."""
        return (kets.to(self.vectors) @ self.vectors.conj()).abs().square()


@dataclass(frozen=True)
class LayerReference:
    """A layer as a study saw it: `samples` of them, d features.

    `classes` and `overall` are of mean-pooled kets, by class and about their common mean (None without classes);
    `state` is the state of mean-pooled kets (of those of all positions without labels), `every` that of all positions.
    `paired` says that complex kets are compared as real ones of their real and imaginary parts.
    """

    info: LayerInfo
    d: Count
    samples: Count
    state: Eigenspace
    classes: Distances | None = None
    overall: Distances | None = None
    every: Eigenspace | None = None
    paired: bool = False

    def check(self) -> None:
        """All parts are of the layer's features."""
        width = self.d * (2 if self.paired else 1)
        widths = [len(self.state.values)]
        widths += [part.means.shape[1] for part in (self.classes, self.overall) if part is not None]
        wrong = [each for each in widths if each != width]
        if self.every is not None and len(self.every.values) != self.d:
            wrong.append(len(self.every.values))
        if wrong:
            raise Malformed(f"a layer of {self.d} features cannot be compared with one of {wrong[0]}")
        if (self.classes is None) != (self.overall is None):
            raise Malformed("a layer must have distances by class and overall, or neither")
        if self.overall is not None and len(self.overall.means) != 1:
            raise Malformed(f"the common mean must be one vector, but there are {len(self.overall.means)}")

    def kets(self, activation: Activation) -> tuple[Tensor, Tensor]:
        """The mean-pooled kets (N, d) of an activation, and their norms before, (N,)."""
        kets, norms = unit(pooled(activation.values, activation.present))
        kets, norms = kets.to(self.device), norms.to(self.device)
        return (torch.cat([kets.real, kets.imag], dim=-1) if self.paired else kets), norms

    @property
    def device(self) -> torch.device:
        """Where scores are computed: a few numbers a sample go there."""
        return self.state.values.device

    def scores(self, kets: Tensor, methods: tuple[str, ...]) -> tuple[dict[str, Tensor], Tensor | None]:
        """The score of mean-pooled kets (N, d) by each method, (N,) each, and the nearest class, if it is computed."""
        result: dict[str, Tensor] = {}
        nearest = None
        if self.classes is not None and self.overall is not None and set(methods) & set(BY_CLASS):
            least = self.classes.squared(kets).min(dim=1)
            nearest = self.classes.codes.to(least.indices)[least.indices]
            result["mahalanobis"] = least.values
            if "relative" in methods:
                result["relative"] = least.values - self.overall.squared(kets)[:, 0]
        if set(methods) & set(LABEL_FREE):
            populations = self.state.populations(kets)
            result["typicality"] = self.state.typicality(populations)
            result["residual"] = self.state.residual(populations)
        return {method: result[method] for method in methods if method in result}, nearest

    def worst(self, activation: Activation, methods: tuple[str, ...]) -> dict[str, Tensor]:
        """The largest score of each sample's positions by each label-free method, (N,) each; −∞ where it has none."""
        assert self.every is not None
        values, present = activation.values, activation.present
        n, t, d = values.shape
        rows = values.reshape(n * t, d) if present is None else values[present]
        owners = torch.arange(n, device=values.device)[:, None].expand(n, t)
        owners = owners.reshape(-1) if present is None else owners[present]
        kets, norms = unit(rows)
        norms, owners = norms.to(self.device), owners.to(self.device)
        populations = self.every.populations(kets)
        result = {}
        for method in methods:
            if method in LABEL_FREE:
                each = getattr(self.every, method)(populations)
                each = torch.where(norms > 0, each, torch.full_like(each, -torch.inf))
                start = each.new_full((n,), -torch.inf)
                result[method] = start.scatter_reduce(0, owners, each, "amax")
        return result


def _complex(like: Tensor) -> Tensor:
    return (
        like
        if like.is_complex()
        else like.to(torch.complex64 if like.dtype != torch.float64 else torch.complex128)
    )
