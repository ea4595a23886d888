"""Draws without replacement, for peaked states: distinct configurations, each with the probability that it was drawn.

Log-probabilities disturbed by independent Gumbel noise have their k largest at k distinct configurations, drawn one
after the other without replacement (Gumbel top-k; Kool, van Hoof & Welling 2019, arXiv 1903.06059). With κ the (k +
1)-th largest, each was drawn with the probability q = 1 − exp(−p e^(−κ)), and Σ p/q·f over those drawn is an unbiased
estimate of Σ p f. Heavy configurations are drawn for certain, once, where chains would return to them all the time.
"""

import torch
from torch import Tensor

from ketwork.waves.samplers.sampler import FullSum, Sampler, Samples
from ketwork.waves.wave import Wave

LISTED = 2**20
"""The largest space whose amplitudes are all computed for a draw."""


class WithoutReplacement(Sampler):
    """Distinct configurations from |ψ|²: of an autoregressive network, or of a space of at most 2²⁰ configurations.

    As many as `n_samples`, or all of the space if it has no more, which is then summed over exactly. An energy's
    standard error is that of `estimate` with inclusion probabilities.

    >>> from ketwork.waves import RBM, Wave, spins
    >>> drawn = WithoutReplacement().sample(Wave(RBM(), spins(8)), 100)
    >>> drawn.flat.shape, len(torch.unique(drawn.flat, dim=0))
    (torch.Size([100, 8]), 100)
    """

    splits = False

    def check(self, wave: Wave) -> None:
        """Refuses a space too large to list of a network that cannot draw."""
        if not hasattr(wave.module, "draw_unique") and wave.space.size > LISTED:
            raise ValueError(
                f"Draws without replacement need an autoregressive network or at most {LISTED} configurations, but "
                f"{type(wave.module).__name__} has no method `draw_unique`, and the space {wave.space.size:,}. Use "
                "`waves.Metropolis()`."
            )

    def draw(
        self, wave: Wave, n_samples: int, state: Tensor, *, generator: torch.Generator
    ) -> tuple[Samples, Tensor]:
        """The configurations with their weights p/q and the probabilities q."""
        if n_samples >= wave.space.size:
            return FullSum().draw(wave, n_samples, state, generator=generator)
        if wave.space.size > LISTED:
            with torch.no_grad():
                x, log, threshold = wave.module.draw_unique(n_samples, generator=generator)  # type: ignore[operator]
            p, q = inclusion(log, threshold)
            return Samples(
                x.to(wave.device, wave.dtype)[None], weights=(p / q)[None], inclusion=q[None]
            ), state
        psi = wave.amplitudes()
        log = 2 * torch.log(psi.abs())
        keys, rows = (log + gumbel(log.shape, generator)).topk(n_samples + 1)
        rows = rows[:-1][keys[:-1] > -torch.inf].sort().values
        p, q = inclusion(log[rows], keys[-1])
        x = wave.space.rows(rows, wave.dtype).to(wave.device)
        return Samples(x[None], 1.0, psi[None], (p / q)[None], q[None], rows=rows), state


def gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Gumbel noise −log(−log u), in double precision."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=1e-300)
    return -torch.log((-torch.log(uniform)).clamp(min=1e-300))


def inclusion(log: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """p = exp(log), and q = 1 − exp(−p e^(−κ)) of configurations above the threshold κ."""
    return torch.exp(log), -torch.expm1(-torch.exp(log - threshold))
