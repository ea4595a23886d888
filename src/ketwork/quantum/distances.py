"""How alike two states are; each function takes a `Ket` or a `Density` on either side.

Pure states take their short branch, factored ones stay in their factors or joint span (never d×d). Batches
broadcast. All are differentiable to first order, also at degenerate and zero eigenvalues, where the one-sided
derivatives that exist are returned and the infinite ones are dropped.
"""

import torch
from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._pairs import as_density, densities, joint_frame, root, rounding
from ketwork.quantum._spectra import (
    EPS,
    abs2,
    noise,
    nuclear_norm,
    product,
    psd_log,
    safe_sqrt,
    shannon,
    wide,
)
from ketwork.quantum.states import Density, Ket, State


def overlap(rho: State, sigma: State) -> Tensor:
    """Returns the Hilbert–Schmidt overlap Tr ρσ (*batch,); for kets |⟨ψ|φ⟩|² (`Ket.overlap` has a phase)."""
    dtype = densities(rho, sigma)[2]
    return _overlap(rho, sigma).to(dtype)


def fidelity(rho: State, sigma: State) -> Tensor:
    """Returns the squared (Jozsa) fidelity (Tr √(√ρ σ √ρ))² (*batch,), from 0 to 1: Qiskit's and dynamiqs's.

    QuTiP and toqito return the root for density operators: see `root_fidelity`, which has cost and accuracy.

    >>> fidelity(Ket.basis(0, 2), Density.maximally_mixed(2))
    tensor(0.5000)
    """
    if isinstance(rho, Ket) or isinstance(sigma, Ket):
        return overlap(rho, sigma)
    return root_fidelity(rho, sigma).square()


def root_fidelity(rho: State, sigma: State) -> Tensor:
    """Returns Tr √(√ρ σ √ρ) (*batch,), from 0 to 1: QuTiP's and toqito's `fidelity`.

    It is the nuclear norm ‖A B†‖ of two factors (Uhlmann 1976, doi 10.1016/0034-4877(76)90060-4): O(r r' d),
    and no root of a small eigenvalue is taken. A dense state has √ρ as its factor, O(d³), with eigenvalues
    below d·2e−16 of the largest set to 0 (for float32 entries below 1.2e−7), which keeps the error near 1e−8.
    """
    dtype = densities(rho, sigma)[2]
    return _root_fidelity(rho, sigma).to(dtype)


def bures_distance(rho: State, sigma: State) -> Tensor:
    """Returns √(2 − 2√F) (*batch,), from 0 to √2; equal states come out below about 1e−7."""
    return safe_sqrt(2 - 2 * _root_fidelity(rho, sigma)).to(densities(rho, sigma)[2])


def bures_angle(rho: State, sigma: State) -> Tensor:
    """Returns arccos √F (*batch,), from 0 to π/2; equal states come out below about 1e−7."""
    root_f = _root_fidelity(rho, sigma)
    inside = root_f < 1
    angle = torch.where(inside, torch.where(inside, root_f, torch.zeros_like(root_f)).arccos(), 0.0)
    return angle.to(densities(rho, sigma)[2])


def trace_distance(rho: State, sigma: State) -> Tensor:
    """Returns ½‖ρ − σ‖₁ (*batch,), from 0 to 1: how well one measurement tells the two apart.

    Two kets: √(1 − |⟨ψ|φ⟩|²), from the residual of one on the other so that close kets lose no digits.
    Two factors: eigenvalues in the joint span, O((r + r')² d). Otherwise dense, O(d³). The subgradient is 0
    on the kernel of ρ − σ. QuTiP's `tracedist` is the same.
    """
    a, b, dtype = densities(rho, sigma)
    if isinstance(rho, Ket) and isinstance(sigma, Ket):
        psi, phi = wide(rho.amplitudes), wide(sigma.amplitudes)
        across = (psi.conj() * phi).sum(-1, keepdim=True)
        return safe_sqrt(abs2(phi - across * psi).sum(-1)).to(dtype)
    x, y, _ = joint_frame(a, b)
    w = torch.linalg.eigvalsh(x - y)
    level = w.shape[-1] * EPS  # of the states' own size, not of their difference: ρ − σ cancels
    return (torch.where(w.detach().abs() > level, w, torch.zeros_like(w)).abs().sum(-1) / 2).to(dtype)


def relative_entropy(rho: State, sigma: State, base: float = 2) -> Tensor:
    """Returns S(ρ‖σ) = Tr ρ (log ρ − log σ) (*batch,), in bits, ≥ 0; inf where ρ reaches outside σ's support.

    Support means eigenvalues above rounding (d·2e−16 of the largest, for float32 entries 1.2e−7), and ρ
    reaches outside with a weight over ten times that. Factored in the joint span, O((r + r')² d). QuTiP's
    `entropy_relative` gives nats by default.

    >>> relative_entropy(Ket.basis(0, 2), Density.maximally_mixed(2))
    tensor(1.)
    """
    a, b, dtype = densities(rho, sigma)
    log_base = check.log_base(base)
    x, y, _ = joint_frame(a, b)
    log_y, support = psd_log(y, rounding(b))
    cross = (x * log_y.conj()).sum((-2, -1)).real / log_base
    outside = torch.eye(support.shape[-1], dtype=support.dtype, device=support.device) - support
    leak = (x.detach() * outside.conj()).sum((-2, -1)).real
    value = -_entropy(a, log_base) - cross
    return torch.where(leak > 10 * noise(rho.d, dtype), torch.inf, value).to(dtype)


def jensen_shannon(rho: State, sigma: State, base: float = 2) -> Tensor:
    """Returns S((ρ + σ)/2) − (S(ρ) + S(σ))/2 (*batch,), in bits, from 0 to 1: the even pair's Holevo bits.

    Its root is a metric (Sra 2021, arXiv 1911.02643). Factored states stay factored, O((r + r')² d).
    """
    a, b, dtype = densities(rho, sigma)
    log_base = check.log_base(base)
    middle = _entropy(a.mix(b, 0.5), log_base)
    parts = sum(_entropy(s, log_base) for s in (rho, sigma) if isinstance(s, Density))
    return (middle - parts / 2).to(dtype)


def _entropy(rho: Density, log_base: float) -> Tensor:
    return shannon(rho._eigenvalues(), log_base)


def _overlap(rho: State, sigma: State) -> Tensor:
    a, b = as_density(rho), as_density(sigma)
    x, y = wide(a.data), wide(b.data)
    if a.factored and b.factored:
        return abs2(product(x, y.mH)).sum((-2, -1))
    if a.factored:
        x, y = y, x  # x dense, y a factor or dense
    if a.factored or b.factored:
        return (product(y, x) * y.conj()).sum((-2, -1)).real
    return (x * y.conj()).sum((-2, -1)).real


def _root_fidelity(rho: State, sigma: State) -> Tensor:
    if isinstance(rho, Ket) or isinstance(sigma, Ket):
        return safe_sqrt(_overlap(rho, sigma))
    return nuclear_norm(product(root(rho), root(sigma).mH))
