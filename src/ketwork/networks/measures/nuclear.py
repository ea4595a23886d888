"""The root fidelity of two layers, ‖XᵀY‖_*/√(Tr XᵀX Tr YᵀY): its error, its bounds, and its chance level."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.measures.intervals import between, interval
from ketwork.networks.measures.nuclear_deletion import without_each
from ketwork.networks.measures.pair_errors import Evidence
from ketwork.quantum import Estimate

ROUNDING = 1e-6
"""Of a similarity of float32 activations: differences of 0.1 % in length."""

_NODES = 2000
_FEWEST = 8  # samples that are deleted, at least
_NUMBERS = 1 << 20  # multiplications for all samples that are deleted, at each node


@dataclass(frozen=True)
class Nuclear:
    """The similarity of these samples, its standard error, and where that of the distribution lies.

    What it is estimated to be at least is `low`; `corrected` has the 95 % interval between that and the jackknife's
    value. NaN: not known.
    """

    value: float
    stderr: float = math.nan
    low: float = math.nan
    corrected: Estimate = field(default_factory=Estimate)


def nuclear_norm(
    c: Tensor,
    weights: tuple[float, float],
    rows: list[Tensor] | None,
    evidence: Evidence | None,
    leading: tuple[int, int] | None = None,
    center: bool = True,
) -> Nuclear:
    """‖C‖_*/√(Tr XᵀX Tr YᵀY) of C = XᵀY (dₓ, d_y), with its error from the kept rows (R, d) of both layers.

    The singular values are roots of the eigenvalues of the smaller Gram matrix, faster than an SVD.

    With C = Σ σ|u⟩⟨v| and p, q a row's coordinates along the u and v, the nuclear norm changes by Σ pₖqₖ to first
    order. It is a convex function, so that few samples raise it. Two estimates of the distribution's follow from
    deleting samples (`without_each`). The jackknife's is right to second order where all singular values stand
    clear of their noise, and too high where some are noise. What the W = Σ|u⟩⟨v| of the other samples holds of each
    sample, summed, is never too high: ⟨C, W⟩ ≤ ‖C‖_* for any W. Where all but a few are noise, it is right. Both are
    taken, as shares of the norm, from the `leading` axes of wide layers, whose singular vectors cost less.
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
    n, samples = evidence.n, evidence.samples
    sums = evidence.clusters.sums
    along = sums((p * q).sum(dim=1)) * samples / n  # of a sample, a row's share
    lengths = [sums(part.square().sum(dim=1)) * samples / n for part in rows]
    first, second = (part / (weight / n) for part, weight in zip(lengths, weights, strict=True))
    value = (total if full is None else full) / root
    psi = value * (along / (total / n) - (first + second) / 2)
    stderr = evidence.stderr(psi)
    if evidence.unknown is not None or value > 1 - ROUNDING:
        return Nuclear(value, stderr, value, Estimate(value, stderr))
    cov = torch.cov(torch.stack([part / part.mean() for part in (along, *lengths)]))
    ratio = 3 / 8 * (cov[1, 1] + cov[2, 2]) + cov[1, 2] / 4 - (cov[0, 1] + cov[0, 2]) / 2
    plain = 1 - float(ratio) / samples
    change, held = (part * (samples - 1) / total for part in _deleted(p, q, x, y, sigma, evidence, center))
    high, low = value * (plain - float(change.mean())), value * (plain + float(held.mean()))
    # The corrections' own variance, over the samples that were deleted.
    above_, below = (
        math.hypot(stderr, value * float(part.std()) / math.sqrt(len(part))) for part in (change, held)
    )
    reach = between(low, high, max(above_, below))
    ends = (low - reach * below, high + reach * above_)
    return Nuclear(value, stderr, low, interval(*(min(max(end, 0.0), 1.0) for end in ends)))


def _deleted(
    p: Tensor, q: Tensor, x: Tensor, y: Tensor, sigma: Tensor, evidence: Evidence, center: bool
) -> tuple[Tensor, Tensor]:
    """`without_each` of the kept samples, or of as many of them as are affordable."""
    clusters, n = evidence.clusters, evidence.n
    most = max(_FEWEST, _NUMBERS // ((clusters.longest + 1) ** 2 * (2 * clusters.longest + len(sigma))))
    parts = [(along, rows) for along, rows in ((p, x), (q, y))]
    if evidence.single:  # the mean moves along the row
        scale = n / (n - 1) if center else 1.0
        lines = [(along[:most, None], rows[:most, None]) for along, rows in parts]
    else:
        scale = 1.0
        lines = [(clusters.padded(along)[:most], clusters.padded(rows)[:most]) for along, rows in parts]
        if center:
            moved = (n - clusters.sizes[:most]).clamp(min=1).to(p).rsqrt()[:, None, None]
            lines = [(_with_sum(along, moved), _with_sum(rows, moved)) for along, rows in lines]
    grams = [scale * (rows @ rows.mT - along @ along.mT) for along, rows in lines]
    if evidence.single:
        grams = [gram.clamp(min=0) for gram in grams]
    first, second = (along * math.sqrt(scale) for along, _ in lines)
    return without_each(first, second, (grams[0], grams[1]), sigma)


def _with_sum(rows: Tensor, scale: Tensor) -> Tensor:
    """Rows (m, T, …) of samples, and their sum by scale as one more, (m, T + 1, …)."""
    return torch.cat([rows, rows.sum(dim=1, keepdim=True) * scale], dim=1)


def _smaller(c: Tensor) -> Tensor:
    """The smaller Gram matrix."""
    return c @ c.mT if c.shape[0] <= c.shape[1] else c.mT @ c


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
