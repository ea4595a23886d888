"""What becomes of a nuclear norm without one of its samples, exactly, with no decomposition of each.

C = Σ σ|u⟩⟨v| without a sample is C − PᵀQ, with a row of P and Q for each row of the sample, in the basis of the u and
v, and one more for the mean that deleting the sample moves. From ‖C‖_* = (1/2π) ∫₀^∞ s^(−½) ln det(1 + CCᵀ/s) ds,

    ‖C − t PᵀQ‖_* − ‖C‖_* = (1/2π) ∫₀^∞ s^(−½) ln det(1 − tK(s)) ds,   K = ( Γᵀ  √s B ; −√s A  Γ ),
    A = P (CCᵀ + s)⁻¹ Pᵀ,   B = Q (CᵀC + s)⁻¹ Qᵀ,   Γ = P C (CᵀC + s)⁻¹ Qᵀ,

matrices no larger than twice a sample's rows, at nodes s that are spaced evenly in ln s. The first order in t is
−Tr PᵀQ along the u and v. The slope at t = 1 is −⟨PᵀQ, W⟩ with W the orthonormal factor (Σ|u⟩⟨v|) of C without the
sample: what a rotation that was fitted to the other samples holds of this one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_STEP = 1.25  # of ln s: the rule's error is e^(−2π²/step)
_SMALLEST = 1e-5  # of the largest singular value, from which on smaller ones are resolved
_BEYOND = 1e6  # times the squares of the singular values, where the integrand falls as a power of s


def without_each(p: Tensor, q: Tensor, beside: tuple[Tensor, Tensor], sigma: Tensor) -> tuple[Tensor, Tensor]:
    """What deleting samples does to ‖C‖_* beyond the first order, and what the others' W holds of each, less the first.

    Neither is positive or negative by chance: ‖C − PᵀQ‖_* ≥ ‖C‖_* − ⟨PᵀQ, Σ|u⟩⟨v|⟩, and the second is no larger than
    minus the first. Cost O(m T r (T + 40)) and O(40 m T³) of m samples with T rows.

    Args:
        p: rows (m, T, r) of each sample along the r singular vectors u, 0 where a sample has none.
        q: the same along the v.
        beside: the inner products (m, T, T) of what the rows of both layers have outside of the u and the v.
        sigma: the r singular values of C, (r,).
    """
    largest = float(sigma.max())
    smallest = max(float(sigma.min()), _SMALLEST * largest)
    steps = math.ceil(math.log(_BEYOND**2 * (largest / smallest) ** 2) / _STEP)
    nodes = smallest**2 / _BEYOND * torch.exp(_STEP * torch.arange(steps + 1, dtype=p.dtype))
    edges = torch.ones_like(nodes)
    edges[[0, -1]] += 1 / math.expm1(_STEP / 2)  # the nodes beyond, where √s times the integrand is geometric
    weights = edges * nodes.sqrt() * (_STEP / (2 * math.pi))
    nodes, weights = nodes.to(p.device), weights.to(p.device)
    if p.shape[1] == 1:
        return _of_single(p[:, 0], q[:, 0], [part[:, 0] for part in beside], sigma, nodes, weights)
    one = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    change, held = p.new_zeros(len(p)), p.new_zeros(len(p))
    for s, weight in zip(nodes.tolist(), weights, strict=True):
        inverse, root = 1 / (sigma.square() + s), math.sqrt(s)
        a, b = ((part * inverse) @ part.mT + more / s for part, more in zip((p, q), beside, strict=True))
        c = (p * (sigma * inverse)) @ q.mT
        upper, lower = torch.cat([one - c.mT, -root * b], dim=2), torch.cat([root * a, one - c], dim=2)
        matrix = torch.cat([upper, lower], dim=1)
        trace = torch.linalg.inv_ex(matrix).inverse.diagonal(dim1=1, dim2=2).sum(dim=1)
        first = 2 * c.diagonal(dim1=1, dim2=2).sum(dim=1)
        change += weight * (torch.linalg.slogdet(matrix).logabsdet + first)
        # −d/dt ln det(1 − tK) at t = 1 is Tr K(1 − K)⁻¹ = Tr (1 − K)⁻¹ − Tr 1.
        held += weight * (trace - 2 * p.shape[1] - first)
    return change, held


def _of_single(
    p: Tensor, q: Tensor, beside: list[Tensor], sigma: Tensor, nodes: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same of samples with one row each, (m, r), all nodes at once: det(1 − K) is (1 − γ)² + sαβ."""
    inverse = 1 / (sigma.square()[:, None] + nodes)
    alpha, beta = (part.square() @ inverse + more / nodes for part, more in zip((p, q), beside, strict=True))
    gamma = (p * q * sigma) @ inverse
    left = ((1 - gamma).square() + nodes * alpha * beta).clamp(min=torch.finfo(p.dtype).tiny)
    return (left.log() + 2 * gamma) @ weights, (2 * (1 - gamma) / left - 2 - 2 * gamma) @ weights
