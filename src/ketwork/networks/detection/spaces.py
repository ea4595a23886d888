"""What kets of one layer are compared with: class means under a whitening, and the eigenstates of its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
from torch import Tensor

from ketwork.networks.detection.shrinkage import Covariance, edge, whitening
from ketwork.records import Count, Form, Malformed

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A number between 0 and 1."""


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


def _complex(like: Tensor) -> Tensor:
    return (
        like
        if like.is_complex()
        else like.to(torch.complex64 if like.dtype != torch.float64 else torch.complex128)
    )
