"""What to measure on a wave: operators, correlations, structure factors, overlaps, entanglement, with errors."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ketwork._compat import moved
from ketwork.waves.estimates import (
    FROZEN,
    SHORT,
    Expectation,
    autocorrelation_times,
    draw_error,
    mean_error,
    quantile_factor,
    stretch_of,
    tail_error,
)
from ketwork.waves.lattices import Lattice
from ketwork.waves.objectives import local_of
from ketwork.waves.operators import Operator
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.structure import check_closed
from ketwork.waves.wave import Wave

SWAPS = 4
"""Each chain meets so many others in the swap of `renyi2`."""


@dataclass(frozen=True)
class Measured:
    """Values and their standard errors, of any shape; the error of a full sum is 0, that of frozen chains NaN."""

    value: Tensor
    stderr: Tensor

    @property
    def mean(self) -> Tensor:
        """The old name of `value`."""
        moved("`mean` of a measured value is now `value`.", level=2)
        return self.value

    @property
    def error(self) -> Tensor:
        """The old name of `stderr`."""
        moved("`error` of a measured value is now `stderr`.", level=2)
        return self.stderr

    def __str__(self) -> str:
        if self.value.numel() > 1:
            errors = f"errors up to {float(self.stderr.max()):.2g}"
            if bool(self.stderr.isnan().all()):
                errors = "errors unknown"
            return f"Measured of shape {tuple(self.value.shape)}, {errors}"
        if math.isnan(self.stderr):
            return f"{float(self.value):.6g} (error unknown)"
        return f"{float(self.value):.6g} ± {float(self.stderr):.2g}"


def expect(operator: Operator, wave: Wave, samples: Samples) -> Expectation:
    """⟨ψ|O|ψ⟩ of any operator that keeps to the wave's space, from samples of the wave (or a `FullSum`'s).

    Chains that never moved show one configuration each, and no spread: what they give has no error and no variance
    (NaN, and a warning), however alike the values are. So it is with everything that is measured here.
    """
    check_closed(operator)
    mean = local_of(operator, wave, samples).mean
    if not _frozen(samples):
        return mean
    return Expectation(mean.value, tau=math.inf, imaginary=mean.imaginary, unit=mean.unit)


def magnetizations(samples: Samples) -> Measured:
    """⟨x_i⟩ of each site: σ^z for spins, occupations for particles. (sites,)

    A site that showed one value alone may have others: one more sample with the farthest value of any site counts in
    the error.
    """
    x = samples.configurations
    return averaged(x, samples, _span(x.flatten()).double())


def correlations(samples: Samples) -> Measured:
    """⟨x_i x_j⟩ of all pairs of sites (sites, sites); subtract ⟨x_i⟩⟨x_j⟩ for the connected part."""
    x = samples.configurations
    products = x[..., :, None] * x[..., None, :]
    same = torch.eye(x.shape[-1], dtype=torch.bool, device=x.device)
    span = torch.where(same, _span(x.square().flatten()), _span(products.flatten()))
    return averaged(products, samples, span.double())


def structure_factor(samples: Samples, lattice: Lattice, momenta: Tensor) -> Measured:
    """S(k) = ⟨|Σ_j exp(i k·r_j) x_j|²⟩/N at momenta (k, D), in the unit of the lattice's positions: (k,).

    Its mean over the lattice's own momenta is ⟨x²⟩, 1 for spins; an antiferromagnet peaks at (π, π).
    """
    angle = momenta.double() @ torch.from_numpy(lattice.positions).T  # (k, sites)
    x = samples.configurations.double()
    real, imaginary = x @ torch.cos(angle).T, x @ torch.sin(angle).T
    return averaged((real.square() + imaginary.square()) / lattice.sites, samples)


def momenta(lattice: Lattice) -> Tensor:
    """The momenta that fit a periodic lattice (cells, D): k·P is a multiple of 2π for every period P."""
    period = lattice.period
    if not len(period):
        raise ValueError("An open lattice has no momenta of its own. Give `structure_factor` any you like.")
    dual = np.linalg.pinv(period).T * 2 * math.pi  # (directions, D): dual_a · period_b = 2π δ_ab
    counts = [len({int(n) for n in np.rint(lattice.cell @ d * 10**6)}) for d in dual]
    grid = np.array(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij")).reshape(len(counts), -1).T
    return torch.from_numpy(grid @ dual)


def renyi2(wave: Wave, region: list[int], samples: Samples) -> Measured:
    """The Rényi-2 entropy S₂ = −log₂ Tr ρ_A² in bits, by the swap of two replicas (Hastings et al. 2010).

    Tr ρ_A² = ⟨ψ(x_A y_B) ψ(y_A x_B)/(ψ(x) ψ(y))⟩ over independent x, y from |ψ|² (DOI
    10.1103/PhysRevLett.104.157201): each chain meets up to four others, and the error is that of leaving one chain out
    (of fewer than eight, one batch, if these are much longer than τ, else NaN). Where a swap leaves the space the
    amplitude is 0. The error grows exponentially with the entropy. For a full sum, exact.
    """
    _check_region(region, wave)
    if samples.complete:
        purity = wave.ket().reduced(region).purity()
        return Measured(-torch.log2(purity), torch.zeros(()))
    if samples.weights is not None:
        raise ValueError(
            "The swap needs samples of chains that count alike, but these have weights of their own."
        )
    if samples.chains < 2:
        raise ValueError("The swap needs samples of at least two chains, but got one.")
    x, chains = samples.configurations, samples.chains
    shifts = sorted({1 + (k * (chains - 1)) // SWAPS for k in range(SWAPS)})
    swaps = torch.stack([_swapped(wave, region, x, x.roll(-shift, 0)) for shift in shifts])
    total = float(swaps.mean())
    if total <= 0:
        raise ValueError("The mean of the swap is not positive: too few samples for so much entanglement.")
    error = math.nan if _frozen(samples) else _left_out(swaps, shifts)
    return Measured(
        torch.tensor(0.0 - math.log2(total), dtype=torch.float64),
        torch.tensor(error / total / math.log(2), dtype=torch.float64),
    )


def _left_out(swaps: Tensor, shifts: list[int]) -> float:
    """The error of the mean of swaps (shifts, chains, length): of leaving out one chain, or batch of few long chains.

    A chain enters once at the front and once at the back of each shift. Few chains that are not long may agree by
    chance, and leaving one out would show nothing: NaN.
    """
    _, chains, length = swaps.shape
    stretch = stretch_of(chains, length)
    pairs = swaps.flatten(0, 1)
    if stretch < length and stretch < SHORT * float(autocorrelation_times(pairs - pairs.mean())):
        return math.nan
    pieces = length // stretch
    means = swaps[..., : pieces * stretch].unflatten(2, (pieces, stretch)).mean(3).flatten(1)
    groups = chains * pieces
    if groups < 3:
        return math.nan
    back = torch.stack([row.roll(shift * pieces) for row, shift in zip(means, shifts, strict=True)])
    without = (means.sum() - (means + back).sum(0)) / (len(shifts) * (groups - 2))
    variance = float((without - without.mean()).square().sum()) * (groups - 1) / groups
    return math.sqrt(variance) * quantile_factor(groups)


def _swapped(wave: Wave, region: list[int], x: Tensor, y: Tensor) -> Tensor:
    """ψ(y_A x_B) ψ(x_A y_B)/(ψ(x) ψ(y)) of pairs of configurations (chains, length): its real part."""
    inside = torch.zeros(wave.space.sites, dtype=torch.bool, device=x.device)
    inside[list(region)] = True
    one, two = torch.where(inside, y, x), torch.where(inside, x, y)
    fits = wave.space.contains(one) & wave.space.contains(two)
    log = (
        _log(wave, torch.where(fits[..., None], one, x))
        + _log(wave, torch.where(fits[..., None], two, y))
        - _log(wave, x)
        - _log(wave, y)
    )
    return torch.where(fits, torch.exp(log).real, 0.0).cpu()


def averaged(values: Tensor, samples: Samples, span: Tensor | None = None) -> Measured:
    """The mean of values (chains, length, *shape) over samples, and its error from the spread of the chains' means.

    Chains are the independent ones, however long their correlations; where there are fewer than eight they are cut into
    batches, if these are much longer than τ. The spread is widened by Student's quantile, and by one more sample that
    is `span` off (*shape; None: like the farthest seen), in squares: all where rare values decide, else nothing. Values
    of a list with weights have the error of its draws.
    """
    values = values.to(torch.complex128 if values.is_complex() else torch.float64)
    if samples.weights is None:
        mean = values.mean((0, 1))
        if _frozen(samples, 4):
            return Measured(mean, torch.full_like(mean.real, math.nan))
        span = (values - mean).abs().amax((0, 1)) if span is None else span
        return Measured(mean, torch.hypot(mean_error(values), span / (values.shape[0] * values.shape[1])))
    rest = [1] * (values.dim() - 2)
    weights = (samples.weights / samples.weights.sum()).to(torch.float64)
    weighed = weights.reshape(*values.shape[:2], *rest)
    mean = (values * weighed).sum((0, 1))
    squares = (values - mean).abs().square()
    variance = torch.zeros_like(mean.real)
    if samples.missing > 0:
        variance = tail_error(squares.flatten(0, 1), weights.flatten(), samples.missing).square()
    if samples.inclusion is not None:
        drawn = draw_error(squares.flatten(0, 1), weights.flatten(), samples.inclusion.flatten())
        variance = variance + drawn.square()
    return Measured(mean, variance.sqrt())


def _span(values: Tensor) -> Tensor:
    return values.max() - values.min()


def _frozen(samples: Samples, level: int = 3) -> bool:
    """Whether the chains never moved, which is also warned of, at the caller so many calls above."""
    if samples.frozen:
        warnings.warn(
            f"{FROZEN[0].upper()}{FROZEN[1:]}, so that these samples need not be from |ψ|². Use `Tempering()`, another "
            "rule, more `warmup`, or `FullSum()`.",
            RuntimeWarning,
            stacklevel=level,
        )
    return samples.frozen


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
