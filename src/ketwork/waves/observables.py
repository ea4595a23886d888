"""What to measure on a wave: operators, correlations, structure factors, overlaps, entanglement, with errors."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.estimates import Estimate, estimate
from ketwork.waves.lattices import Lattice
from ketwork.waves.local_energy import full_local_energies, local_energies
from ketwork.waves.operators import Operator
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.wave import Wave

GROUPS = 32
"""Errors come from the spread of the means of at least this many groups of consecutive samples."""


@dataclass(frozen=True)
class Measured:
    """A mean and its standard error, of any shape; the error of a full sum is 0."""

    mean: Tensor
    error: Tensor

    def __str__(self) -> str:
        if self.mean.numel() > 1:
            return f"Measured of shape {tuple(self.mean.shape)}, errors up to {float(self.error.max()):.2g}"
        return f"{float(self.mean):.6g} ± {float(self.error):.2g}"


def expect(operator: Operator, wave: Wave, samples: Samples) -> Estimate:
    """⟨ψ|O|ψ⟩ of any operator on the wave's space, from samples of the wave (or a `FullSum`'s)."""
    if samples.amplitudes is not None:
        values, weights = full_local_energies(operator, wave, samples.amplitudes[0])
        return estimate(values[None], weights[None])
    return estimate(local_energies(operator, wave, samples.flat).reshape(samples.chains, -1))


def magnetisations(samples: Samples) -> Measured:
    """⟨x_i⟩ of each site: σ^z for spins, occupations for particles. (sites,)"""
    return averaged(samples.configurations, samples)


def correlations(samples: Samples) -> Measured:
    """⟨x_i x_j⟩ of all pairs of sites (sites, sites); subtract ⟨x_i⟩⟨x_j⟩ for the connected part."""
    x = samples.configurations
    return averaged(x[..., :, None] * x[..., None, :], samples)


def structure_factor(samples: Samples, lattice: Lattice, momenta: Tensor) -> Measured:
    """S(k) = ⟨|Σ_j exp(i k·r_j) x_j|²⟩/N at momenta (k, 2), in the unit of the lattice's positions: (k,).

    Its mean over the lattice's own momenta is ⟨x²⟩, 1 for spins; an antiferromagnet peaks at (π, π).
    """
    angle = momenta.double() @ torch.from_numpy(lattice.positions).T  # (k, sites)
    x = samples.configurations.double()
    real, imaginary = x @ torch.cos(angle).T, x @ torch.sin(angle).T
    return averaged((real.square() + imaginary.square()) / lattice.sites, samples)


def momenta(lattice: Lattice) -> Tensor:
    """The momenta that fit a periodic lattice (cells, 2): k·P is a multiple of 2π for every period P."""
    period = lattice.period
    if not len(period):
        raise ValueError("An open lattice has no momenta of its own. Give `structure_factor` any you like.")
    dual = np.linalg.pinv(period).T * 2 * math.pi  # (directions, 2): dual_a · period_b = 2π δ_ab
    counts = [len({int(n) for n in np.rint(lattice.cell @ d * 10**6)}) for d in dual]
    grid = np.array(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij")).reshape(len(counts), -1).T
    return torch.from_numpy(grid @ dual)


def renyi2(wave: Wave, region: list[int], samples: Samples) -> Measured:
    """The Rényi-2 entropy S₂ = −log₂ Tr ρ_A² in bits, by the swap of two replicas (Hastings et al. 2010).

    Tr ρ_A² = ⟨ψ(x_A y_B) ψ(y_A x_B)/(ψ(x) ψ(y))⟩ over independent x, y from |ψ|² (DOI
    10.1103/PhysRevLett.104.157201): the first half of the chains meets the second. Where a swap leaves the
    space the amplitude is 0. The error grows exponentially with the entropy. For a full sum, exact.
    """
    _check_region(region, wave)
    if samples.amplitudes is not None:
        purity = wave.ket().reduced(region).purity()
        return Measured(-torch.log2(purity), torch.zeros(()))
    half = samples.chains // 2
    if half < 1:
        raise ValueError("The swap needs samples of at least two chains, but got one.")
    x, y = samples.configurations[:half], samples.configurations[half : 2 * half]
    inside = torch.zeros(wave.space.sites, dtype=torch.bool)
    inside[list(region)] = True
    one, two = torch.where(inside, y, x), torch.where(inside, x, y)
    fits = wave.space.contains(one) & wave.space.contains(two)
    log = (
        _log(wave, torch.where(fits[..., None], one, x))
        + _log(wave, torch.where(fits[..., None], two, y))
        - _log(wave, x)
        - _log(wave, y)
    )
    ratio = torch.where(fits, torch.exp(log).real, 0.0)
    swap = averaged(ratio, Samples(x))
    if swap.mean <= 0:
        raise ValueError("The mean of the swap is not positive: too few samples for so much entanglement.")
    return Measured(-torch.log2(swap.mean), swap.error / swap.mean / math.log(2))


def fidelity(first: Wave, second: Wave, samples: Samples, other: Samples) -> Measured:
    """|⟨φ|ψ⟩|² of two waves on one space, squared, from samples of each (`samples` of the first).

    ⟨φ/ψ⟩ over |ψ|² times ⟨ψ/φ⟩ over |φ|²; with full sums of both, exact. Precise where the waves are close.
    """
    if first.space != second.space:
        raise ValueError(f"The waves must be on the same space, but are on {first.space} and {second.space}.")
    if samples.amplitudes is not None and other.amplitudes is not None:
        overlap = (samples.amplitudes.conj() * other.amplitudes).sum()
        return Measured(overlap.abs().square(), torch.zeros(()))
    at, there = samples.configurations, other.configurations
    one, two = _log(second, at) - _log(first, at), _log(first, there) - _log(second, there)
    # A common factor drops out of the product; taking the means out keeps both exponentials in range.
    level = (one.real.mean() - two.real.mean()) / 2
    ratios = averaged(torch.exp(one - level), samples), averaged(torch.exp(two + level), other)
    value = (ratios[0].mean * ratios[1].mean).real
    relative = [m.error / m.mean.abs() for m in ratios]
    return Measured(value, value.abs() * (relative[0] ** 2 + relative[1] ** 2).sqrt())


def averaged(values: Tensor, samples: Samples) -> Measured:
    """The mean of values (chains, length, *shape) over samples, and its error from the spread of group means.

    A group is a chain where there are many, a stretch of one where there are few, so that autocorrelation
    shorter than a stretch is accounted for.
    """
    values = values.to(torch.complex128 if values.is_complex() else torch.float64)
    if samples.weights is not None:
        weights = samples.weights.reshape(*values.shape[:2], *[1] * (values.dim() - 2))
        mean = (values * weights).sum((0, 1))
        return Measured(mean, torch.zeros_like(mean.real))
    chains, length = values.shape[:2]
    pieces = min(length, max(1, -(-GROUPS // chains)))
    stretch = length // pieces
    groups = values[:, : pieces * stretch].unflatten(1, (pieces, stretch)).mean(2).flatten(0, 1)
    mean = values.mean((0, 1))
    return Measured(mean, (groups - mean).abs().square().mean(0).sqrt() / math.sqrt(max(1, len(groups) - 1)))


def _log(wave: Wave, x: Tensor) -> Tensor:
    log = wave.log_amplitude(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    return log.to(torch.complex128 if log.is_complex() else torch.float64)


def _check_region(region: list[int], wave: Wave) -> None:
    sites = set(region)
    if not sites or len(sites) != len(region) or not sites < set(range(wave.space.sites)):
        raise ValueError(
            f"Argument `region` must be distinct sites among 0 … {wave.space.sites - 1}, not all of them, but is "
            f"{list(region)}."
        )
