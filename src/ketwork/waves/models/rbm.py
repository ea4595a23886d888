"""Restricted Boltzmann machines, real and complex, with everything that makes them fast."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ketwork.waves.models.network import Network, normal
from ketwork.waves.models.tables import Tables
from ketwork.waves.spaces import Space

_LOG = 20.0  # e^20 is in the range of single precision; products of 35, computed in double precision, in that of it


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
        t = tanh(s @ w.T + b)
        width = s.shape[1] + t.shape[1]
        rows = s.new_empty(
            len(s), width + t.shape[1] * s.shape[1]
        )  # filled in place: full sums have many rows
        rows[:, :width] = torch.cat([s, t], 1)
        torch.mul(t[:, :, None], s[:, None], out=rows[:, width:].unflatten(1, (t.shape[1], -1)))
        return rows

    def tables(self) -> Tables | None:
        """What the compiled loops read, at the present parameters; None beyond two levels a site."""
        if self.space.levels != 2:
            return None
        with torch.no_grad():
            a, b, w = self.expanded()
            double = 2 * w.T
            visible = torch.stack([-2 * a, 2 * a], 1).exp()
            weights, bias, table = w.T.contiguous(), b.contiguous(), tanh(double).contiguous()
            scale = scales(log_cosh(double))
            return Tables(
                weights.numpy(), bias.numpy(), table.numpy(), scale.numpy(), visible.numpy(), self.features
            )


def scales(logs: Tensor) -> Tensor:
    """exp Σ of blocks of columns (sites, blocks), as few of one size as keep each within e^±20."""
    count, blocks = logs.shape[1], 1
    while True:
        size = -(-count // blocks)
        sums = pad(logs, (0, -count % size)).unflatten(1, (-1, size)).sum(2)
        if size == 1 or bool((sums.real.abs() <= _LOG).all()):
            return sums.exp().contiguous()
        blocks *= 2


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x without overflow, real or complex: x + log(1 + exp(−2x)) − log 2, for Re x taken positive.

    Complex logarithms and tangents of PyTorch run one number at a time; their parts in real functions run in
    vector registers, ten times as fast.
    """
    if not x.is_complex():
        size = x.abs()
        return size + torch.nn.functional.softplus(-2 * size) - math.log(2)
    sign, _, above, v = _decayed(x)
    modulus = x.real * sign + torch.log(above.square() + v.square()) / 2 - math.log(2)
    return torch.complex(modulus, x.imag * sign + torch.atan2(v, above))


def tanh(x: Tensor) -> Tensor:
    """tanh x, real or complex: (1 − exp(−2x))/(1 + exp(−2x)), for Re x taken positive."""
    if not x.is_complex():
        return torch.tanh(x)
    sign, size, above, v = _decayed(x)
    scale = sign / (above.square() + v.square())
    return torch.complex((1 - size.square()) * scale, -2 * v * scale)


def _decayed(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sign that makes Re x positive; then |z| and the parts of 1 + z, with z = exp(−2x).

    The sum of squares of these two is |1 + z|² to all digits. 1 + 2 Re z + |z|² may be below 0 near a node, z = −1.
    """
    sign = torch.where(x.real < 0, -1.0, 1.0).to(x.real.dtype)
    size, angle = torch.exp(-2 * x.real * sign), 2 * x.imag * sign
    return sign, size, 1 + size * torch.cos(angle), -size * torch.sin(angle)
