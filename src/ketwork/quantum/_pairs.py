"""Two states side by side: the frames in which their measures are computed on the smaller side."""

import torch
from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._spectra import noise, psd_sqrt, real_dtype, wide
from ketwork.quantum.states import Density, Ket, State


def as_density(state: State) -> Density:
    """A ket as a factor of one row, a density operator as it is."""
    return state.density() if isinstance(state, Ket) else state


def densities(rho: State, sigma: State) -> tuple[Density, Density, torch.dtype]:
    """Both as density operators of equal d, and the real dtype of a measure of them."""
    check.same_size(rho.d, sigma.d, "rho", "sigma")
    a, b = as_density(rho), as_density(sigma)
    return a, b, real_dtype(a.data, b.data)


def rounding(rho: Density) -> float:
    """The share of its largest eigenvalue below which one is rounding: dense entries were rounded too."""
    return noise(rho.d, torch.float64 if rho.factored else real_dtype(rho.data))


def root(rho: Density) -> Tensor:
    """R (*batch, r, d) in double precision with R†R = ρ: the factor itself, or √ρ."""
    data = wide(rho.data)
    return data if rho.factored else psd_sqrt(data, rounding(rho))


def joint_frame(rho: Density, sigma: Density) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both states as small dense matrices in a basis Q of their joint span, and Q (d, k); None for Q = 1.

    k = r + r'. Q is held constant under differentiation, which is exact to first order for measures that see
    only the part of a change inside the supports: the trace distance (whose derivative is the sign of ρ − σ)
    and the relative entropy (ln σ, on the support of ρ).
    """
    a, b = wide(rho.data), wide(sigma.data)
    if not (rho.factored and sigma.factored and a.shape[-2] + b.shape[-2] < rho.d):
        return wide(rho.matrix()), wide(sigma.matrix()), None
    dtype = torch.promote_types(a.dtype, b.dtype)
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (x.to(dtype).expand(*batch, *x.shape[-2:]) for x in (a, b))
    q = torch.linalg.qr(torch.cat([a, b], -2).detach().mH).Q  # (*batch, d, k)
    a, b = a @ q, b @ q
    return a.mH @ a, b.mH @ b, q
