"""Restricted Boltzmann machines, real and complex, with everything that makes them fast."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.models import kernels
from ketwork.waves.models.network import Network, normal
from ketwork.waves.spaces import Space


class RBM(Network):
    """log ψ(s) = Σ_i a_i s_i + Σ_h log cosh(b_h + Σ_i W_hi s_i), with alpha·sites hidden units.

    Carleo & Troyer 2017 (DOI 10.1126/science.aag2302). Real parameters give positive amplitudes; complex ones
    (`dtype=torch.complex64` or `complex128`) any sign and phase, holomorphically. Parameters start normal with
    deviation `std`. The Jacobian is analytic. On two-level spaces flips run compiled (`kernels.py`).
    NetKet's `RBM` is the same function.

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
        """Makes a (sites), b (hidden) and W (hidden, sites)."""
        hidden = round(self.alpha * space.sites)
        if hidden < 1:
            raise ValueError(f"Argument `alpha` must give at least one hidden unit, but is {self.alpha}.")
        self.a = normal(space.sites, std=self.std, generator=generator, dtype=self.dtype)
        self.b = normal(hidden, std=self.std, generator=generator, dtype=self.dtype)
        self.w = normal(hidden, space.sites, std=self.std, generator=generator, dtype=self.dtype)

    def expanded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The visible bias, hidden bias and weights that a configuration meets; a symmetric machine expands its own."""
        return self.a, self.b, self.w

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): (batch,)."""
        a, b, w = self.expanded()
        s = self.inputs(x).to(w.dtype)
        return s @ a + log_cosh(s @ w.T + b).sum(-1)

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log ψ/∂(a, b, W) of each configuration: (batch, parameters)."""
        _, b, w = self.expanded()
        s = self.inputs(x).to(w.dtype)
        tanh = torch.tanh(s @ w.T + b)
        return torch.cat([s, tanh, (tanh[:, :, None] * s[:, None]).flatten(1)], 1)

    def tables(self) -> "Tables | None":
        """What the compiled loops read, at the present parameters; None where sites have other than two levels."""
        if self.space.levels != 2:
            return None
        with torch.no_grad():
            a, b, w = self.expanded()
            double = 2 * w.T
            log = log_cosh(double).sum(1)  # (sites,)
            visible = torch.stack([log - 2 * a, log + 2 * a], 1).exp()
            arrays = (t.resolve_conj().contiguous().numpy() for t in (w.T, b, torch.tanh(double), visible))
            return Tables(*arrays, self.inputs)


@dataclass(frozen=True)
class Tables:
    """Arrays of an RBM for `kernels`: weights and tanh 2W (sites, hidden), bias, and visible factors (sites, 2)."""

    weights: np.ndarray
    bias: np.ndarray
    table: np.ndarray
    visible: np.ndarray
    spins: Callable[[Tensor], Tensor]

    def local_energies(self, x: Tensor, patterns: Tensor, elements: Tensor) -> Tensor:
        """Σ_g ⟨x|H|x_g⟩ ψ(x_g)/ψ(x), x_g being x flipped on pattern g: (batch,)."""
        s = self.spins(x).to(_real(self.bias))
        tanh = np.tanh(s.numpy() @ self.weights + self.bias)
        counts = patterns.sum(1)
        padded = np.zeros((len(patterns), max(1, int(counts.max()))), dtype=np.int64)
        for row, pattern in enumerate(patterns):
            padded[row, : counts[row]] = torch.nonzero(pattern)[:, 0].numpy()
        out = kernels.local_energies(
            s.numpy(), tanh, self.table, self.visible, padded, counts.numpy(), elements.numpy()
        )
        return torch.from_numpy(out)

    def sweep(
        self, x: Tensor, moves: np.ndarray, *, proposals: int, skip: int, length: int, power: float, seed: int
    ) -> tuple[Tensor, int]:
        """Metropolis chains from x (chains, sites): spins (chains, length, sites) and accepted proposals."""
        s = self.spins(x).to(_real(self.bias)).numpy()
        kept, accepted = kernels.sweep(
            s, self.weights, self.bias, self.table, self.visible, moves, proposals, skip, length, power, seed
        )
        return torch.from_numpy(kept), accepted


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x without overflow, for real and complex x (cosh is even, so Re x is taken positive)."""
    if x.is_complex():
        x = torch.where(x.real < 0, -x, x)
        return x + torch.log1p(torch.exp(-2 * x)) - math.log(2)
    size = x.abs()
    return size + torch.nn.functional.softplus(-2 * size) - math.log(2)


def _real(array: np.ndarray) -> torch.dtype:
    return torch.float32 if array.dtype in (np.float32, np.complex64) else torch.float64


