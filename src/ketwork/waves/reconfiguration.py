"""Stochastic reconfiguration: the step of imaginary time, seen through the network's own geometry.

With centred log-derivatives O (n, P) and centred local energies ε (n), rows weighed by √(1/n) or √|ψ|², the
step d solves (S + λ) d = F, with S = Re O†O and F = Re O†ε (both complex for holomorphic parameters); θ ← θ
− η d.
"""

from typing import Literal

import torch
from torch import Tensor

from ketwork.waves.factored import FactoredRows
from ketwork.waves.processes import ALONE, Processes
from ketwork.waves.wave import Wave

Solver = Literal["auto", "parameters", "samples"]

HELD = 2**26
"""The most log-derivatives that are held at once: 256 MB in single precision."""

NODE = 1e-10
"""Configurations of a smaller share of |ψ|² may have derivatives that are not finite: they are nodes."""

RAISES = 6
"""So many times the shift of a singular system is raised tenfold."""


def centered(rows: Tensor, weights: Tensor | None) -> Tensor:
    """√w (rows − ⟨rows⟩): rows (n, …) less their mean, weighed so that plain products are averages."""
    if weights is None:
        return (rows - rows.mean(0)).mul_((1 / len(rows)) ** 0.5)
    weights = (weights / weights.sum()).to(rows.real.dtype)
    moved = rows - weights.to(rows.dtype) @ rows
    return moved.mul_(weights.sqrt().reshape(-1, *[1] * (rows.dim() - 1)))


def stacked(o: Tensor, energies: Tensor, holomorphic: bool) -> tuple[Tensor, Tensor]:
    """O and ε made real where the parameters are: real and imaginary rows one below the other."""
    if holomorphic:
        return o, energies.to(o.dtype)
    if o.is_complex():
        return torch.cat([o.real, o.imag]), torch.cat([energies.real, energies.imag]).to(o.real.dtype)
    return o, energies.real.to(o.dtype)


def factored_rows(
    wave: Wave, x: Tensor, energies: Tensor, weights: Tensor | None
) -> tuple[FactoredRows, Tensor] | None:
    """O and ε as `rows` has them, O by its factors: for modules with these and fewer configurations than parameters."""
    if not hasattr(wave.module, "factors") or len(x) >= wave.count:
        return None
    with torch.no_grad():
        factors = wave.module.factors(x.to(wave.device, wave.dtype))  # type: ignore[operator]
    weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    finite = torch.stack([torch.isfinite(one).all(1) for one, _ in factors]).all(0)
    keep = finite | (weights / weights.sum() > NODE)
    if not bool(keep.all()):
        factors = [(one[keep], None if two is None else two[keep]) for one, two in factors]
        energies, weights = energies[keep], weights[keep]
    weights = (weights / weights.sum()).to(factors[0][0].dtype)
    return FactoredRows(factors, weights), centered(energies, weights).real.to(weights.dtype)


def rows(
    wave: Wave, x: Tensor, energies: Tensor, weights: Tensor | None, processes: Processes = ALONE
) -> tuple[Tensor, Tensor]:
    """O and ε of configurations x (n, sites): what an optimizer's update starts from.

    A node, where ψ is 0 and ∂ log ψ infinite, is excluded with its weight. Where the n × P log-derivatives would not
    fit and P is the smaller, they are condensed to P rows, part by part, so that memory does not grow with n. Each of
    several processes computes a part of the derivatives.
    """
    if len(x) > wave.count and len(x) * wave.count > HELD:
        return condensed(wave, x, energies, weights, processes)
    o = processes.mapped(wave.jacobian, x)
    if weights is not None:
        o, energies, weights = without_nodes(o, energies, weights)
    return stacked(centered(o, weights), centered(energies, weights), wave.holomorphic)


def without_nodes(o: Tensor, energies: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows whose derivatives are finite, or that weigh too much for a node."""
    size = torch.view_as_real(o).flatten(1) if o.is_complex() else o
    keep = torch.isfinite(size).all(1) | (weights / weights.sum() > NODE)
    return (o, energies, weights) if bool(keep.all()) else (o[keep], energies[keep], weights[keep])


def condensed(
    wave: Wave, x: Tensor, energies: Tensor, weights: Tensor | None, processes: Processes = ALONE
) -> tuple[Tensor, Tensor]:
    """P rows with the same O†O and O†ε as n rows: √Λ V† and Λ^(−½) V† F, from S = V Λ V†."""
    weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights
    weights = (weights / weights.sum()).to(x.device)
    energies = energies - (weights * energies).sum()
    second = first = force = torch.zeros((), device=x.device)
    mine = torch.arange(processes.rank, len(x), processes.count, device=x.device)
    for part in mine.split(max(1, HELD // (8 * wave.count))):
        o, local, weight = without_nodes(wave.jacobian(x[part]), energies[part], weights[part])
        root = weight.sqrt().to(o.real.dtype)
        real, driven = stacked(o * root[:, None], local * weight.sqrt(), wave.holomorphic)
        weight = weight.to(o.real.dtype)
        second = second + _gram(real.mH).to(_wide(real))
        force = force + (real.mH @ driven).to(_wide(real))
        first = first + weight.to(o.dtype) @ o
    second, first, force = (processes.total(each) for each in (second, first, force))
    mean, _ = stacked(first[None], energies[:1], wave.holomorphic)
    values, vectors = torch.linalg.eigh(second - (mean.mH @ mean).to(_wide(mean)))
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(values > 1e-14 * values[-1], 1 / root, 0.0)
    turned = inverse * (vectors.mH @ force)
    return (root[:, None] * vectors.mH).to(mean.dtype), turned.to(mean.dtype)


def natural_step(
    o: Tensor | FactoredRows,
    energies: Tensor,
    *,
    shift: float,
    solver: Solver = "auto",
    previous: Tensor | None = None,
    momentum: float = 0.0,
) -> Tensor:
    """The step d (P,) from O (n, P) and ε (n).

    In parameter space (P × P, Sorella 1998) or sample space, d = O†(OO† + λ)⁻¹ε (n × n, "minSR", Chen & Heyl
    2024, DOI 10.1038/s41567-024-02566-1): the same vector, whichever is smaller. SPRING (Goldshlager et al.
    2024, arXiv 2401.10190) adds `momentum` times the previous step and corrects it: d = μd₋ + O†(OO† +
    λ)⁻¹(ε − μ O d₋). λ is `shift` times the mean diagonal of S, so that it has no unit. Solved by Cholesky
    in double precision; O(n P min(n, P)). Where that meets a singular system λ is raised, which shortens the step; a
    system that has no finite entries gives NaN.
    """
    carried = None if previous is None or not momentum else momentum * previous
    if carried is not None:
        energies = energies - o @ carried
    n, count = o.shape
    in_samples = solver == "samples" or (solver == "auto" and n < count)
    if isinstance(o, FactoredRows) and not in_samples:
        o = o.dense()
    gram = o.gram() if isinstance(o, FactoredRows) else _gram(o if in_samples else o.mH)
    gram = gram.to(_wide(energies))
    scale = float(gram.diagonal().real.sum()) / count
    if scale == 0:  # one configuration: nothing to go by
        return energies.new_zeros(count) if carried is None else carried
    gram.diagonal().add_(shift * scale + torch.finfo(energies.dtype).eps * scale * max(gram.shape))
    right = energies if in_samples else _back(o, energies)
    for _ in range(RAISES):
        factor, failed = torch.linalg.cholesky_ex(gram)
        if not int(failed):
            break
        shift *= 10
        gram.diagonal().add_(0.9 * shift * scale)
    else:
        return torch.full((count,), torch.nan, dtype=energies.dtype, device=energies.device)
    solved = torch.cholesky_solve(right.to(gram.dtype)[:, None], factor)[:, 0].to(energies.dtype)
    step = _back(o, solved) if in_samples else solved
    return step if carried is None else step + carried


def _back(o: Tensor | FactoredRows, values: Tensor) -> Tensor:
    """O† values."""
    return o.back(values) if isinstance(o, FactoredRows) else o.mH @ values


def _wide(values: Tensor) -> torch.dtype:
    return torch.complex128 if values.is_complex() else torch.float64


def _gram(rows: Tensor) -> Tensor:
    """rows · rows†. NumPy sees that a real one is symmetric and computes half of it (BLAS `syrk`); PyTorch does not."""
    if rows.is_complex() or rows.device.type != "cpu":
        return rows @ rows.mH
    array = rows.numpy()
    return torch.from_numpy(array @ array.T)
