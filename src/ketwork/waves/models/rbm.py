"""Restricted Boltzmann machines, real and complex, with everything that makes them fast."""

import math

import torch
from torch import Tensor

from ketwork.waves.models.network import Network, normal
from ketwork.waves.models.tables import Tables
from ketwork.waves.spaces import Space


class RBM(Network):
    """log ψ(s) = Σ_i a_i s_i + Σ_h log cosh(b_h + Σ_i W_hi s_i), with alpha·sites hidden units.

    Carleo & Troyer 2017 (DOI 10.1126/science.aag2302). Real parameters give positive amplitudes; complex
    ones (`dtype=torch.complex64` or `complex128`) any sign and phase, holomorphically. Parameters start
    normal with deviation `std`. The Jacobian is analytic. On two-level spaces flips run compiled
    (`kernels.py`). NetKet's `RBM` is the same function.

    >>> from ketwork.waves.spaces import spins
    >>> rbm = RBM(alpha=2)
    >>> rbm.build(spins(4), torch.Generator().manual_seed(0))
    >>> rbm(torch.ones(3, 4)).shape, sum(p.numel() for p in rbm.parameters())
    (torch.Size([3]), 44)
    """

    def __init__(self, alpha: float = 1, *, std: float = 0.01, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.alpha, self.std, self.dtype = alpha, std, dtype or torch.get_default_dtype()
        self.complex = self.holomorphic = self.dtype.is_complex

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes a (visible), b (hidden) and W (hidden, visible)."""
        hidden, visible = round(self.alpha * space.sites), space.sites * self.units
        if hidden < 1:
            raise ValueError(f"Argument `alpha` must give at least one hidden unit, but is {self.alpha}.")
        self.a = normal(visible, std=self.std, generator=generator, dtype=self.dtype)
        self.b = normal(hidden, std=self.std, generator=generator, dtype=self.dtype)
        self.w = normal(hidden, visible, std=self.std, generator=generator, dtype=self.dtype)

    def expanded(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and W as a configuration meets them; a symmetric machine expands its own to these."""
        return self.a, self.b, self.w

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): (batch,)."""
        a, b, w = self.expanded()
        s = self.features(x).to(w.dtype)
        return s @ a + log_cosh(s @ w.T + b).sum(-1)

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log ψ/∂(a, b, W) of each configuration: (batch, parameters)."""
        _, b, w = self.expanded()
        s = self.features(x).to(w.dtype)
        tanh = torch.tanh(s @ w.T + b)
        return torch.cat([s, tanh, (tanh[:, :, None] * s[:, None]).flatten(1)], 1)

    def tables(self) -> Tables | None:
        """What the compiled loops read, at the present parameters; None beyond two levels a site."""
        if self.space.levels != 2:
            return None
        with torch.no_grad():
            a, b, w = self.expanded()
            double = 2 * w.T
            log = log_cosh(double).sum(1)  # (sites,)
            visible = torch.stack([log - 2 * a, log + 2 * a], 1).exp()
            weights, bias, table = w.T.contiguous(), b.contiguous(), torch.tanh(double).contiguous()
            return Tables(weights.numpy(), bias.numpy(), table.numpy(), visible.numpy(), self.features)


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x without overflow, for real and complex x (cosh is even, so Re x is taken positive)."""
    if x.is_complex():
        x = torch.where(x.real < 0, -x, x)
        return x + torch.log1p(torch.exp(-2 * x)) - math.log(2)
    size = x.abs()
    return size + torch.nn.functional.softplus(-2 * size) - math.log(2)
