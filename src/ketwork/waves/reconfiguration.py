"""Stochastic reconfiguration: the step of imaginary time, seen through the network's own geometry.

With centred log-derivatives O (n, P) and centred local energies ε (n), rows weighed by √(1/n) or √|ψ|², the
step d solves (S + λ) d = F, with S = Re O†O and F = Re O†ε (both complex for holomorphic parameters); θ ← θ
− η d.
"""

from typing import Literal

import torch
from torch import Tensor

from ketwork.waves.wave import Wave

Solver = Literal["auto", "parameters", "samples"]

HELD = 2**26
"""The most log-derivatives of a full sum that are held at once: 256 MB in single precision."""


def centred(rows: Tensor, weights: Tensor | None) -> Tensor:
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


def rows(wave: Wave, x: Tensor, energies: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """O and ε of configurations x (n, sites): what an optimiser's update starts from.

    A full sum whose n × P log-derivatives would not fit is condensed to P rows, part by part, so that memory
    is bounded.
    """
    if weights is not None and len(x) > wave.count and len(x) * wave.count > HELD:
        return condensed(wave, x, energies, weights)
    return stacked(centred(wave.jacobian(x), weights), centred(energies, weights), wave.holomorphic)


def condensed(wave: Wave, x: Tensor, energies: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """P rows with the same O†O and O†ε as the n rows of a full sum: √Λ V† and Λ^(−½) V† F, from S = V Λ V†."""
    weights = weights / weights.sum()
    energies = energies - (weights * energies).sum()
    second = first = force = torch.zeros(())
    for part in torch.arange(len(x)).split(max(1, HELD // (8 * wave.count))):
        o = wave.jacobian(x[part])
        weight = weights[part].to(o.real.dtype)
        real, driven = stacked(o * weight.sqrt()[:, None], energies[part] * weight.sqrt(), wave.holomorphic)
        second = second + _gram(real.mH).to(_wide(real))
        force = force + (real.mH @ driven).to(_wide(real))
        first = first + weight.to(o.dtype) @ o
    mean, _ = stacked(first[None], energies[:1], wave.holomorphic)
    values, vectors = torch.linalg.eigh(second - (mean.mH @ mean).to(_wide(mean)))
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(values > 1e-14 * values[-1], 1 / root, 0.0)
    turned = inverse * (vectors.mH @ force)
    return (root[:, None] * vectors.mH).to(mean.dtype), turned.to(mean.dtype)


def natural_step(
    o: Tensor,
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
    in double precision; O(n P min(n, P)).
    """
    carried = None if previous is None or not momentum else momentum * previous
    if carried is not None:
        energies = energies - o @ carried
    n, count = o.shape
    in_samples = solver == "samples" or (solver == "auto" and n < count)
    gram = _gram(o if in_samples else o.mH).to(_wide(o))
    scale = float(gram.diagonal().real.sum()) / count
    gram.diagonal().add_(shift * scale + torch.finfo(o.dtype).eps * scale * max(gram.shape))
    right = energies if in_samples else o.mH @ energies
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return torch.full((count,), torch.nan, dtype=o.dtype)
    solved = torch.cholesky_solve(right.to(gram.dtype)[:, None], factor)[:, 0].to(o.dtype)
    step = o.mH @ solved if in_samples else solved
    return step if carried is None else step + carried


def _wide(values: Tensor) -> torch.dtype:
    return torch.complex128 if values.is_complex() else torch.float64


def _gram(rows: Tensor) -> Tensor:
    """rows · rows†. NumPy sees that a real one is symmetric and computes half of it (BLAS `syrk`); PyTorch does not."""
    if rows.is_complex() or rows.device.type != "cpu":
        return rows @ rows.mH
    array = rows.numpy()
    return torch.from_numpy(array @ array.T)
