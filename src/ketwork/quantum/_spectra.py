"""Spectra of positive operators: entropies, roots, logarithms, and their derivatives where they degenerate.

Everything here is decomposed in double precision, whatever came in; callers cast the result back. Derivatives
never pass through eigenvectors: a spectral function of a matrix is differentiated by its divided differences
(Daleckii and Krein 1965; Bhatia, Matrix Analysis, V.3.3), which stay finite where eigenvalues coincide.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = torch.finfo(torch.float64).eps


def wide(x: Tensor) -> Tensor:
    """`x` in double precision, real or complex as it was."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def real_dtype(*tensors: Tensor) -> torch.dtype:
    """The real dtype that the given tensors promote to: what a measure of them returns."""
    dtype = tensors[0].real.dtype
    for x in tensors[1:]:
        dtype = torch.promote_types(dtype, x.real.dtype)
    return dtype


def abs2(x: Tensor) -> Tensor:
    """|x|², smooth at zero."""
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the dtype both promote to (a real and a complex factor may meet)."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype) @ b.to(dtype)


def noise(n: int, dtype: torch.dtype = torch.float64) -> float:
    """Eigenvalues below this share of the largest are rounding: n·eps of the solver, eps of the entries."""
    return max(n * EPS, torch.finfo(dtype).eps)


def above_noise(x: Tensor, level: float) -> Tensor:
    """Mask of the entries of `x` (*batch, n) above `level` times the largest one."""
    largest = x.detach().amax(-1, keepdim=True)
    return (x.detach() > level * largest) & (x.detach() > 0)


def shannon(p: Tensor, log_base: float) -> Tensor:
    """−Σ p ln p / log_base over the last axis; entries at rounding level count as 0, with gradient 0."""
    keep = above_noise(p, p.shape[-1] * EPS)
    q = torch.where(keep, p, torch.ones_like(p))
    return -(q * q.log()).sum(-1) / log_base


def safe_sqrt(x: Tensor) -> Tensor:
    """√x, and 0 with gradient 0 where x ≤ 0."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


def nuclear_norm(x: Tensor) -> Tensor:
    """Sum of singular values (*batch,); those at rounding level get gradient 0, a valid subgradient."""
    s = torch.linalg.svdvals(x)
    return torch.where(above_noise(s, max(x.shape[-2:]) * EPS), s, torch.zeros_like(s)).sum(-1)


def right_svd(x: Tensor, full: bool = False) -> tuple[Tensor, Tensor]:
    """Singular values (*batch, r) and right vectors Vᴴ of x (*batch, r, d); `full` completes these to d of them.

    Of a long x that of its triangular factor, which takes less than half the time (2.4 × at 768 × 16,384).
    """
    if full or 2 * x.shape[-2] > x.shape[-1]:
        _, s, vh = torch.linalg.svd(x, full_matrices=full)
        return s, vh
    q, upper = torch.linalg.qr(x.mH)
    _, s, vh = torch.linalg.svd(upper.mH)
    return s, vh @ q.mH


class _SpectralFunction(torch.autograd.Function):
    """f(H) = V f(w) V† on the kept eigenvalues, 0 on the others; once differentiable."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, v: Tensor, keep: Tensor, name: str) -> Tensor:
        w = torch.where(keep, w, torch.ones_like(w))
        f = torch.where(keep, w.sqrt() if name == "sqrt" else w.log(), torch.zeros_like(w))
        ctx.save_for_backward(w, v, keep, f)
        ctx.name = name
        return (v * f.unsqueeze(-2)) @ v.mH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        w, v, keep, f = ctx.saved_tensors
        a, b = w.unsqueeze(-1), w.unsqueeze(-2)
        if ctx.name == "sqrt":
            inside = 1 / (a.sqrt() + b.sqrt())
        else:
            least = torch.minimum(a, b)
            u = (a - b).abs() / least  # (ln a − ln b)/(a − b) = ln(1 + u)/(u · least): nothing cancels
            inside = torch.where(u == 0, 1.0, u.log1p() / torch.where(u == 0, 1.0, u)) / least
        # Between the support and the kernel f goes from f(a) to 0; inside the kernel it is taken as constant.
        across = f.unsqueeze(-1) / a + f.unsqueeze(-2) / b  # one of the two terms is 0
        ka, kb = keep.unsqueeze(-1), keep.unsqueeze(-2)
        divided = torch.where(ka & kb, inside, torch.where(ka | kb, across, torch.zeros_like(inside)))
        return v @ (divided * (v.mH @ grad @ v)) @ v.mH, None, None, None, None


def psd_eigh(h: Tensor, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (*batch, d), eigenvectors, and which eigenvalues lie above rounding; no gradient."""
    w, v = torch.linalg.eigh(h.detach())
    return w, v, above_noise(w, level)


def psd_sqrt(h: Tensor, level: float) -> Tensor:
    """√H of a positive H (*batch, d, d) in double precision; noise eigenvalues count as 0."""
    out: Tensor = _SpectralFunction.apply(h, *psd_eigh(h, level), "sqrt")
    return out


def psd_log(h: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """ln H on the support of a positive H (0 off it), and the projector onto that support."""
    w, v, keep = psd_eigh(h, level)
    out: Tensor = _SpectralFunction.apply(h, w, v, keep, "log")
    return out, (v * keep.unsqueeze(-2)) @ v.mH


def inverse_sqrt(h: Tensor, level: float) -> Tensor:
    """H^(−1/2) on the support of a positive H, 0 off it; no gradient."""
    w, v, keep = psd_eigh(h, level)
    f = torch.where(keep, torch.where(keep, w, torch.ones_like(w)).rsqrt(), torch.zeros_like(w))
    return (v * f.unsqueeze(-2)) @ v.mH
