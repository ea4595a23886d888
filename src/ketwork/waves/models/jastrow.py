"""Jastrow factors: correlations of pairs, the simplest wave beyond a product."""

import torch
from torch import Tensor

from ketwork.waves.models.network import Network, normal
from ketwork.waves.spaces import Space


class Jastrow(Network):
    """log ψ(s) = Σ_i a_i s_i + Σ_{i<j} J_ij s_i s_j, real or complex.

    Jastrow 1955 (DOI 10.1103/PhysRev.98.1479).
    On more than two levels, s are one-hot levels and pairs join distinct sites. The Jacobian is analytic.
    """

    def __init__(self, *, std: float = 0.01, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.std, self.dtype = std, dtype or torch.get_default_dtype()
        self.holomorphic = self.dtype.is_complex

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes a (features) and J (pairs of features of distinct sites)."""
        width = space.sites * self.units
        self.rows, self.columns = torch.triu_indices(width, width, 1)
        apart = self.rows // self.units != self.columns // self.units
        self.rows, self.columns = self.rows[apart], self.columns[apart]
        self.a = normal(width, std=self.std, generator=generator, dtype=self.dtype)
        self.j = normal(len(self.rows), std=self.std, generator=generator, dtype=self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): (batch,)."""
        s = self.features(x).to(self.j.dtype)
        coupling = s.new_zeros(s.shape[-1], s.shape[-1]).index_put((self.rows, self.columns), self.j)
        return s @ self.a + ((s @ coupling) * s).sum(-1)

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log ψ/∂(a, J) of each configuration: s_i and s_i s_j."""
        s = self.features(x).to(self.j.dtype)
        return torch.cat([s, s[:, self.rows] * s[:, self.columns]], 1)
