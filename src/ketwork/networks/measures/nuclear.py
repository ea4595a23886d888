"""The root fidelity of two layers, ‖XᵀY‖_*/√(Tr XᵀX Tr YᵀY): its error, its bias, and its chance level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.measures.pair_errors import Evidence

_NODES = 2000


@dataclass(frozen=True)
class Nuclear:
    """The similarity, its standard error, and by how much few samples raise it to second order (NaN: not known)."""

    value: float
    stderr: float = math.nan
    bias: float = math.nan


def nuclear_norm(
    c: Tensor,
    weights: tuple[float, float],
    rows: list[Tensor] | None,
    evidence: Evidence | None,
    leading: tuple[int, int] | None = None,
) -> Nuclear:
    """‖C‖_*/√(Tr XᵀX Tr YᵀY) of C = XᵀY (dₓ, d_y), with its error from the kept rows (R, d) of both layers.

    The singular values are roots of the eigenvalues of the smaller Gram matrix, faster than an SVD.

    With C = Σ σ|u⟩⟨v| and p, q a row's coordinates along the u and v, the nuclear norm changes by Σ pₖqₖ to first
    order, and to second by ½ Σ_{j<k} (a_jk − a_kj)²/(σⱼ + σₖ) + ½ Σ a²/σ (of what lies beside the u or v), a the change
    of C on them (Lewis & Sendov 2005). Its mean over n samples is the bias. Both are taken, as shares of the norm, from
    the `leading` axes of wide layers, whose singular vectors cost less.
    """
    root = math.sqrt(weights[0] * weights[1])
    if rows is None or evidence is None:
        return Nuclear(_norm(torch.linalg.eigvalsh(_smaller(c))) / root)
    full = None
    if leading is not None and leading != tuple(c.shape):
        full = _norm(torch.linalg.eigvalsh(_smaller(c)))
        c, x, y = c[: leading[0], : leading[1]], rows[0][:, : leading[0]], rows[1][:, : leading[1]]
    else:
        x, y = rows
    if c.shape[0] > c.shape[1]:
        c, x, y = c.mT, y, x
    values, vectors = torch.linalg.eigh(c @ c.mT)
    total = _norm(values)
    above = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    sigma = values[above].sqrt()
    vectors = vectors[:, above]
    p = x @ vectors
    q = (y @ c.mT) @ (vectors / sigma)
    n, rows_each = evidence.n, evidence.n / evidence.samples
    sums = evidence.clusters.sums
    along = sums((p * q).sum(dim=1)) / rows_each  # of a sample, a row's share
    lengths = [sums(part.square().sum(dim=1)) / rows_each for part in rows]
    first, second = (part / (weight / n) for part, weight in zip(lengths, weights, strict=True))
    value = (total if full is None else full) / root
    stderr = evidence.stderr(value * (along / (total / n) - (first + second) / 2))
    cov = torch.cov(torch.stack([part / part.mean() for part in (along, *lengths)]))
    ratio = 3 / 8 * (cov[1, 1] + cov[2, 2]) + cov[1, 2] / 4 - (cov[0, 1] + cov[0, 2]) / 2
    bias = _bend(p, q, y, sigma / n) * _inflation(evidence, x, y) / total
    return Nuclear(value, stderr, value * (bias + float(ratio) / evidence.samples))


def _smaller(c: Tensor) -> Tensor:
    """The smaller Gram matrix."""
    return c @ c.mT if c.shape[0] <= c.shape[1] else c.mT @ c


def _bend(p: Tensor, q: Tensor, y: Tensor, sigma: Tensor) -> float:
    """The mean over rows of the second-order change of the nuclear norm, with σ of one row."""
    # Σ_{j<k} (pⱼqₖ − pₖqⱼ)²/(σⱼ + σₖ) is Σ_{jk} (pⱼ²qₖ² − pⱼqⱼpₖqₖ)/(σⱼ + σₖ): two products of rows, none of d × d.
    p2, q2, pq = p.square(), q.square(), p * q
    inverse = 1 / (sigma[:, None] + sigma)
    inside = ((p2 @ inverse) * q2).sum() - ((pq @ inverse) * pq).sum()
    beside = (y.square().sum(dim=1) - q2.sum(dim=1)).clamp(min=0)  # of y, beside the v
    return float(inside + beside @ (p2 @ (1 / sigma))) / (2 * len(p))


def _inflation(evidence: Evidence, x: Tensor, y: Tensor) -> float:
    """How much more ‖C‖² varies by full samples than by rows alone."""
    if evidence.single:
        return 1.0
    grams = [evidence.clusters.grams(part) for part in (x, y)]
    alone = float((x.square().sum(dim=1) * y.square().sum(dim=1)).sum())
    return float((grams[0] * grams[1]).sum()) / alone if alone > 0 else 1.0


def _norm(squares: Tensor) -> float:
    """The sum of singular values from their squares, without those of rounding."""
    noise = squares[-1] * len(squares) * torch.finfo(squares.dtype).eps
    return float(torch.where(squares > noise, squares, 0.0).sqrt().sum())


def null_root_fidelity(spectra: list[Tensor], m: float) -> Tensor:
    """The root fidelity to expect of states with these spectra whose eigenbases have nothing in common, (L, L).

    For m × m states K, L of trace 1 in general position ‖√K√L‖_* → m (2/π) ∫₀¹ √(p/(1−p)) (u_K(p) u_L(p))^(−1/2) dp,
    where u_K(p) inverts p = (1/m) Tr uK/(1 + uK): a free multiplicative convolution (Voiculescu's S-transform
    on the negative axis). Exact for large m and ranks; 6 % too high for two states of rank 1.

    Args:
        spectra: eigenvalues of each, up to a factor; those that are missing are 0.
        m: the dimension they live in (N − 1 for N centred samples).

    >>> import torch
    >>> round(float(null_root_fidelity([torch.ones(50), torch.ones(50)], 50)[0, 1]), 3)
    1.0
    """
    x = (torch.arange(_NODES, dtype=torch.float64) + 0.5) / _NODES
    # p = 1 − (1 − x²)²: nodes crowd at both ends, where the integrand's slope diverges.
    p, step = 1 - (1 - x * x) ** 2, 4 * x * (1 - x * x) / _NODES
    u = m * torch.logspace(-8, 12, 1000, dtype=torch.float64)  # p ≈ u/m for small u
    inverse_roots = []
    for values in spectra:
        total = values.double().sum()
        scaled = values.double() / torch.where(total > 0, total, 1.0)
        share = (u[:, None] * scaled / (1 + u[:, None] * scaled)).sum(dim=1) / m
        right = torch.searchsorted(share, p).clamp(1, len(u) - 1)
        low, high = share[right - 1].log(), share[right].log()
        part = ((p.log() - low) / torch.where(high > low, high - low, 1.0)).clamp(0, 1)
        log_u = torch.lerp(u[right - 1].log(), u[right].log(), part)
        inverse_roots.append(torch.where(p < share[-1], (-log_u / 2).exp(), 0.0))
    roots = torch.stack(inverse_roots)  # (L, nodes)
    return m * (2 / math.pi) * (roots * (p / (1 - p)).sqrt() * step) @ roots.mT
