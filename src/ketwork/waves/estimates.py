"""Numbers that know their error: the mean of samples, with what tells whether to trust it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MANY_CHAINS = 32
"""From this many chains on, the spread of the chains' means gives the error directly."""


@dataclass(frozen=True)
class Estimate:
    """mean ± error of a local quantity.

    `variance` is ⟨|E − ⟨E⟩|²⟩, zero at an eigenstate. `tau` is Σ_k ρ(k), the autocorrelation time in kept
    samples, 0 for independent ones: error² = variance·(1 + 2 tau)/n (Sokal 1997). `rhat` compares the
    variance between and within (half) chains, 1 when they agree (Gelman et al., Bayesian Data Analysis,
    11.4); NaN below two samples a chain. `vscore` is N·variance/(E − E∞)² (Wu et al. 2024, DOI
    10.1126/science.adg9774); NaN where no E∞ is given. A full sum has error 0, tau 0, rhat 1. NetKet's
    `Stats` has the same mean, error, variance, tau and R̂.
    """

    mean: float
    error: float
    variance: float
    tau: float
    rhat: float
    vscore: float = math.nan
    imaginary: float = 0.0

    def __str__(self) -> str:
        digits = max(0, 1 - math.floor(math.log10(self.error))) if 0 < self.error < math.inf else 6
        value = (
            f"{self.mean:.{digits}f} ± {self.error:.{digits}f}"
            if self.error
            else f"{self.mean:.8f} (exact sum)"
        )
        score = "" if math.isnan(self.vscore) else f", V-score={self.vscore:.1e}"
        return f"{value} [σ²={self.variance:.2g}, τ={self.tau:.1f}, R̂={self.rhat:.3f}{score}]"


def estimate(
    values: Tensor, weights: Tensor | None = None, *, sites: int = 1, infinite: float = math.nan
) -> Estimate:
    """The estimate of values (chains, length), or of a full sum with weights of the same shape.

    `sites` and `infinite` (the energy E∞ at infinite temperature) serve the V-score.
    """
    if weights is not None:
        weights = weights / weights.sum()
        mean = (values * weights).sum()
        variance = float(((values - mean).abs().square() * weights).sum())
        return _made(mean, 0.0, variance, 0.0, 1.0, sites, infinite)
    mean = values.mean()
    variance = float((values - mean).abs().square().mean())
    tau = _autocorrelation(values - mean, variance)
    error = math.sqrt(max(variance, 0.0) * (1 + 2 * tau) / values.numel())
    return _made(mean, error, variance, tau, split_rhat(values.real), sites, infinite)


def split_rhat(values: Tensor) -> float:
    """R̂ = √(((n−1)/n·W + B/n)/W) of real values (chains, length), of half chains from length 8 on."""
    chains, length = values.shape
    if length >= 8:
        half = length // 2
        values = values[:, : 2 * half].reshape(2 * chains, half)
    n = values.shape[1]
    if n < 2 or len(values) < 2:
        return math.nan
    within = float(values.var(1).mean())
    between = float(values.mean(1).var())
    if within == 0:
        return 1.0 if between == 0 else math.inf
    return math.sqrt((n - 1) / n + between / within)


def _autocorrelation(centred: Tensor, variance: float) -> float:
    """Σ_k ρ(k): from the spread of chain means where there are many chains, else summed to Sokal's window."""
    chains, length = centred.shape
    if length == 1 or variance == 0:
        return 0.0
    if chains >= MANY_CHAINS:
        spread = float(centred.mean(1).abs().square().sum()) / (chains - 1)
        return max(0.0, (length * spread / variance - 1) / 2)
    frequency = torch.fft.fft(centred, n=2 * length)
    raw = torch.fft.ifft(frequency.abs().square())[:, :length].real.mean(0)
    rho = raw / torch.arange(length, 0, -1) / variance
    total = 0.0
    for k in range(1, length):
        total += float(rho[k])
        if k >= 5 * (1 + 2 * total) / 2:  # beyond five autocorrelation times there is only noise
            break
    return max(0.0, total)


def _made(
    mean: Tensor, error: float, variance: float, tau: float, rhat: float, sites: int, infinite: float
) -> Estimate:
    real, imaginary = float(mean.real), float(mean.imag) if mean.is_complex() else 0.0
    gap = real - infinite
    score = sites * variance / gap**2 if gap else math.inf
    return Estimate(real, error, variance, tau, rhat, score, imaginary)
