"""Expectation values that know their error: the mean of samples, with what tells whether to trust it."""

import math
from typing import Any, Self

import torch
from scipy.special import stdtrit
from torch import Tensor

from ketwork._compat import moved, renamed
from ketwork.quantum import Estimate, Interval

MANY_CHAINS = 32
"""From this many chains on, the spread of the chains' means alone gives the error."""

FROZEN = "no error is known: the chains never moved"
"""What is said of numbers from chains of which no proposal was accepted."""

SHORT = 10
"""Batches shorter than so many autocorrelation times are not independent."""

FEW_CHAINS = 8
"""Below this many, chains are cut into batches, whose means take the place of theirs."""


class Expectation(Estimate):
    """⟨O⟩ ± its standard error, of the energy or any other operator: a number, with what tells whether to trust it.

    Args:
        value: the mean of the local values.
        stderr: its standard error: 0 for a sum over all configurations, NaN where nothing is known of it.
        variance: ⟨|O(x) − ⟨O⟩|²⟩, zero at an eigenstate.
        tau: Σ_k ρ(k), the autocorrelation time in kept samples, 0 for independent ones (Sokal 1997), and infinite for
            chains that never moved.
        rhat: R̂, the variance between and within (half) chains, 1 when they agree (Gelman et al., Bayesian Data
            Analysis, 11.4), and where all values are the same; NaN below two samples a chain.
        vscore: N·variance/(E − E∞)² (Wu et al. 2024, DOI 10.1126/science.adg9774); NaN where no E∞ is given.
        imaginary: the imaginary part of the mean, 0 in theory for a Hermitian operator.

    NetKet's `Stats` has the same mean, variance, tau and R̂.

    >>> energy = Expectation(-25.4893, 0.0011, variance=0.0095, tau=0.1, rhat=1.001)
    >>> print(energy, energy.value, energy < -25)
    -25.4893 ± 0.0011 [σ²=0.0095, τ=0.1, R̂=1.001] -25.4893 True
    """

    __slots__ = ("imaginary", "rhat", "tau", "variance", "vscore")

    variance: float
    tau: float
    rhat: float
    vscore: float
    imaginary: float

    @renamed(mean="value", error="stderr")
    def __new__(
        cls,
        value: float = math.nan,
        stderr: float = math.nan,
        variance: float = math.nan,
        tau: float = 0.0,
        rhat: float = math.nan,
        vscore: float = math.nan,
        imaginary: float = 0.0,
        *,
        bounds: Interval | None = None,
        unit: str = "",
    ) -> Self:
        """The expectation value; all but the first may be unknown (NaN)."""
        self = super().__new__(cls, value, stderr, bounds, unit)
        self.variance, self.tau, self.rhat = variance, tau, rhat
        self.vscore, self.imaginary = vscore, imaginary
        return self

    @property
    def mean(self) -> float:
        """The old name of `value`."""
        moved("`mean` of an expectation value is now `value`; it is itself a number, too.", level=2)
        return self.value

    @property
    def error(self) -> float:
        """The old name of `stderr`."""
        moved("`error` of an expectation value is now `stderr`.", level=2)
        return self.stderr

    def numbers(self) -> tuple[float, ...]:
        """All of it as plain numbers, in the order of the constructor."""
        return (self.value, self.stderr, self.variance, self.tau, self.rhat, self.vscore, self.imaginary)

    def __str__(self) -> str:
        if math.isnan(self):
            return "–"
        digits = max(0, 1 - math.floor(math.log10(self.stderr))) if 0 < self.stderr < math.inf else 8
        digits = min(digits, 12)
        error = f" ± {self.stderr:.{digits}f}" if self.stderr else " (exact sum)"
        if math.isinf(self.tau):
            return f"{self.value:.{digits}f}{f' {self.unit}' if self.unit else ''} ({FROZEN})"
        if math.isnan(self.stderr):
            error = " (error unknown)"
        score = "" if math.isnan(self.vscore) else f", V-score={self.vscore:.1e}"
        unit = f" {self.unit}" if self.unit else ""
        trust = f"[σ²={self.variance:.2g}, τ={self.tau:.1f}, R̂={self.rhat:.3f}{score}]"
        return f"{self.value:.{digits}f}{error}{unit} {trust}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.numbers(), self.bounds, self.unit)


def _restored(
    kind: type[Expectation], numbers: tuple[float, ...], bounds: Interval | None, unit: str
) -> Expectation:
    return kind(*numbers, bounds=bounds, unit=unit)


def estimate(
    values: Tensor,
    weights: Tensor | None = None,
    *,
    inclusion: Tensor | None = None,
    missing: float = 0.0,
    sites: int = 1,
    infinite: float = math.nan,
    resolution: float = 0.0,
) -> Expectation:
    """The expectation value of local values (chains, length), which count alike or by `weights` of the same shape.

    Values that count alike come from chains: the standard error is the spread of the means of many chains; of few, the
    larger of that and √(variance·(1 + 2τ)/n); of fewer than eight, chains are cut into batches first, where these are
    much longer than τ. Where a spread of k means is used it is multiplied by t(k−1)/1.96, Student's
    quantile over the normal one, so that ± 1.96 errors cover at 95 %. One more sample like the farthest is added (in
    squares): all where rare values decide, else nothing.

    Values with weights come from a list of distinct configurations. A full sum has no error. With `inclusion`, the
    probabilities q with which each was drawn without replacement (weights p/q, normalised), it is Σ w²(1 − q)|v − ⟨v⟩|²
    (Duffield, Lund & Thorup 2007, DOI 10.1145/1314690.1314696: terms of threshold sampling are uncorrelated). With
    `missing`, the share of |ψ|² outside the list, there is what values outside could change, taken to be like the
    lightest ones listed: missing·⟨|v − ⟨v⟩|⟩ over the part that weighs as much as is missing.

    `sites` and `infinite` (the energy E∞ at infinite temperature) serve the V-score. Values that differ by less than
    `resolution`, which is rounding, count as the same.
    """
    if weights is None:
        mean = values.mean()
        variance = float((values - mean).abs().square().mean())
        same = variance <= resolution**2
        tau = 0.0 if same else _autocorrelation(values - mean, variance)
        error = (
            0.0
            if variance == 0
            else math.hypot(
                _error(values - mean, variance, tau), float((values - mean).abs().max()) / values.numel()
            )
        )
        rhat = 1.0 if same and min(values.shape) > 1 else split_rhat(values.real)
        return _made(mean, error, variance, tau, rhat, sites, infinite)
    weights = (weights / weights.sum()).to(torch.float64)
    mean = (values * weights).sum()
    squares = (values - mean).abs().square()
    variance = float((squares * weights).sum())
    error = float(tail_error(squares.flatten(), weights.flatten(), missing)) if missing > 0 else 0.0
    if inclusion is not None:
        error = math.hypot(
            error, float(draw_error(squares.flatten(), weights.flatten(), inclusion.flatten()))
        )
    return _made(mean, error, variance, 0.0, 1.0, sites, infinite)


def draw_error(squares: Tensor, weights: Tensor, inclusion: Tensor) -> Tensor:
    """√[(Σ t + max t)(1 + 1/m)] with t = w²(1 − q)·squares of n values (n, *shape) drawn without replacement.

    Σ t is the variance of threshold sampling; the largest term is for one more like it, and m = Σ(1 − q), how many of
    the values chance decided, widens what few of them say.
    """
    shape = [1] * (squares.dim() - 1)
    terms = (weights.square() * (1 - inclusion)).reshape(-1, *shape) * squares
    decided = max(1.0, float((1 - inclusion).sum()))
    return ((terms.sum(0) + terms.amax(0)) * (1 + 1 / decided)).sqrt()


def tail_error(squares: Tensor, weights: Tensor, missing: float) -> Tensor:
    """missing·⟨√squares⟩ over the lightest of n values (n, *shape) that weigh `missing` together."""
    order = weights.argsort()
    within = weights[order].cumsum(0) <= missing
    within[0] = True
    tail = weights[order][within].reshape(-1, *[1] * (squares.dim() - 1))
    return missing * (tail * squares[order][within].sqrt()).sum(0) / tail.sum()


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


def quantile_factor(groups: int) -> float:
    """Student's 97.5 % quantile for the spread of so many means, over the normal one: 1.09 of 16, 1.04 of 32."""
    return float(stdtrit(max(1, groups - 1), 0.975) / 1.959963984540054)


def group_means(values: Tensor, least: int = MANY_CHAINS) -> Tensor:
    """The means (groups, *shape) of chains of values (chains, length, *shape); of batches where chains are few.

    Cutting a chain into batches takes them as independent, which holds if they are longer than its correlation; so it
    is done with fewer than eight chains alone, until there are `least` batches, and not believed where batches are
    short (`mean_error`).
    """
    chains, length = values.shape[:2]
    stretch = stretch_of(chains, length, least)
    pieces = length // stretch
    return values[:, : pieces * stretch].unflatten(1, (pieces, stretch)).mean(2).flatten(0, 1)


def stretch_of(chains: int, length: int, least: int = MANY_CHAINS) -> int:
    """The length of batches that `group_means` takes: that of the chains where these are not few."""
    if chains >= FEW_CHAINS or length == 1:
        return length
    return length // max(1, min(length // 4, -(-least // chains)))


def spread_error(means: Tensor) -> Tensor:
    """The standard error of the mean of independent means (groups, *shape), made wider where they are few."""
    groups = len(means)
    if groups < 2:
        return torch.full(means.shape[1:], math.nan, dtype=torch.float64)
    squares = (means - means.mean(0)).abs().square().sum(0) / (groups - 1)
    return (squares / groups).sqrt() * quantile_factor(groups)


def mean_error(values: Tensor) -> Tensor:
    """The standard error (*shape) of the mean of chains of values (chains, length, *shape), by the means of chains.

    Of few chains by the means of batches, where these are much longer than the values' autocorrelation time. Else only
    whole chains are independent; of a single chain, which has no other to compare with, √(variance·(1 + 2τ)/n).
    """
    means = group_means(values)
    error = spread_error(means)
    chains, length = values.shape[:2]
    if len(means) == chains:
        return error
    times = autocorrelation_times(values - values.mean((0, 1)))
    if chains > 1:
        correlated = spread_error(values.mean(1))
    else:
        variance = (values - values.mean((0, 1))).abs().square().mean((0, 1))
        correlated = torch.maximum(error, (variance * (1 + 2 * times) / length).sqrt())
    return torch.where(stretch_of(chains, length) >= SHORT * times, error, correlated)


def autocorrelation_times(centered: Tensor) -> Tensor:
    """Σ_k ρ(k) (*shape) of values (chains, length, *shape) less their mean, over all chains, to Sokal's window."""
    length = centered.shape[1]
    frequency = torch.fft.fft(centered, n=2 * length, dim=1)
    raw = torch.fft.ifft(frequency.abs().square(), dim=1)[:, :length].real.mean(0)
    steps = torch.arange(length, dtype=raw.dtype, device=raw.device).reshape(-1, *[1] * (raw.dim() - 1))
    raw = raw / (length - steps)
    rho = torch.where(raw[:1] > 0, raw / raw[:1], 0.0)
    total = rho[1:].cumsum(0)
    if not len(total):
        return torch.zeros_like(raw[0])
    beyond = steps[1:] >= 5 * (1 + 2 * total) / 2  # beyond five autocorrelation times there is only noise
    beyond[-1] = True
    return total.gather(0, beyond.double().argmax(0, keepdim=True))[0].clamp(min=0)


def _error(centered: Tensor, variance: float, tau: float) -> float:
    chains = len(centered)
    correlated = math.sqrt(max(variance, 0.0) * (1 + 2 * tau) / centered.numel())
    spread = float(mean_error(centered))
    if math.isnan(spread):
        return correlated
    return spread if chains >= MANY_CHAINS else max(correlated, spread)


def _autocorrelation(centered: Tensor, variance: float) -> float:
    """Σ_k ρ(k): from the spread of chain means where there are many chains, else summed to Sokal's window."""
    chains, length = centered.shape
    if length == 1 or variance == 0:
        return 0.0
    if chains >= MANY_CHAINS:
        spread = float(centered.mean(1).abs().square().sum()) / (chains - 1)
        return max(0.0, (length * spread / variance - 1) / 2)
    return float(autocorrelation_times(centered))


def _made(
    mean: Tensor, error: float, variance: float, tau: float, rhat: float, sites: int, infinite: float
) -> Expectation:
    real, imaginary = float(mean.real), float(mean.imag) if mean.is_complex() else 0.0
    gap = real - infinite
    score = sites * variance / gap**2 if gap else math.inf
    return Expectation(real, error, variance, tau, rhat, score, imaginary)
