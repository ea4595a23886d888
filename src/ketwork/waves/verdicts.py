"""The verdict on a finished run: what its samples alone cannot show.

Three tests. On spaces small enough the exact ground energy E₀ bounds the overlap with the ground state: σ² ≥ |c₀|²(E −
E₀)², so that |c₀|² ≤ σ²/(E − E₀)². On any space the residual (H − E)ψ is computed at the configurations that are joined
to some of those seen: where ψ has vanished there but Hψ has not, the samples miss part of H. And half the chains are
fresh from random configurations, so that R̂ compares chains that have not learned with the wave.
"""

import math

import torch

from ketwork.waves import exact
from ketwork.waves.estimates import Expectation
from ketwork.waves.guards import Guard, Trouble, largest_rhat, unmixed
from ketwork.waves.local_energy import distinct, images
from ketwork.waves.operators import Operator
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.wave import Wave

SOLVED = 2**14
"""Spaces up to this size have their ground energy computed beside a run: a second or less."""

ANOTHER = 0.01
"""A state that can overlap less with the ground state is another one."""

LOOKED_AT = 16
"""Configurations whose neighbours are looked at."""

ELEMENTS = 2**16


def ground_energy(operator: Operator, limit: int = SOLVED) -> float | None:
    """The exact ground energy of a space of at most so many configurations, computed once; None beyond."""
    if operator.space.size > limit:
        return None
    if "_ground_energy" not in operator.__dict__:
        operator.__dict__["_ground_energy"] = exact.ground_energy(operator)
    result: float = operator.__dict__["_ground_energy"]
    return result


def most_overlap(energy: Expectation, ground: float, resolution: float) -> float:
    """σ²/(E − E₀)², the most that a state of that energy and variance overlaps with the ground state."""
    gap = float(energy) - ground - 6 * energy.stderr - resolution
    return 1.0 if gap <= 0 else min(1.0, (energy.variance + resolution**2) / gap**2)


def verdict(
    operator: Operator,
    wave: Wave,
    energy: Expectation,
    drawn: Samples,
    guard: Guard,
    ground: float | None,
    resolution: float,
    still: bool = False,
) -> Trouble | None:
    """What is wrong with the energy of a trained wave on fresh samples; `still` if steps no longer moved it."""
    reached = ground is not None and float(energy) - ground < 1e-3 * max(operator.scale, abs(ground))
    if still and not reached and energy.variance > (0.05 * operator.scale) ** 2:
        return Trouble(
            "stuck",
            f"No step turned the state any more, though its energy varies by σ² = {energy.variance:.2g}: its "
            "gradient has vanished or the rate is too small. Use another seed, a larger `std`, or a higher rate.",
        )
    if ground is not None:
        overlap = most_overlap(energy, ground, resolution)
        if overlap < ANOTHER:
            return Trouble(
                "excited state",
                f"The energy {float(energy):.8g} and its variance {energy.variance:.2g} leave at most {overlap:.1e} "
                f"of the state to the ground state, whose energy is {ground:.8g}: this is another, or part of one. "
                "Use another seed, a larger `std`, more samples, or a full sum (`n_samples=None`).",
            )
    elif drawn.weights is None or drawn.missing:
        missed = unseen_variance(operator, wave, energy, drawn)
        if (
            missed
            > max(0.01 * operator.scale**2, 30 * energy.variance * max(1, operator.width)) + resolution**2
        ):
            return Trouble(
                "untouched configurations",
                f"Configurations joined to those sampled have (H − E)ψ of squared size {missed:.2g}, but the samples "
                f"show a variance of {energy.variance:.2g}: the chains miss part of the state. Use `Tempering()`, "
                "more samples, or another seed.",
            )
    if energy.rhat > largest_rhat(guard, drawn.configurations.shape[1]):
        return unmixed(f"is {energy.rhat:.3g} at the end, half of the chains being fresh")
    return None


def unseen_variance(operator: Operator, wave: Wave, energy: Expectation, drawn: Samples) -> float:
    """Σ |(H − E)ψ|² over configurations joined to some of those seen, over Σ |ψ|² of these."""
    x = drawn.flat
    first, _ = distinct(wave, x)
    few = max(1, min(LOOKED_AT, ELEMENTS // max(1, operator.width) ** 2))
    seen = x[first.sort().values[:few]]
    reached, elements = operator.connected(seen)
    row, place = torch.nonzero(elements, as_tuple=True)
    both = torch.cat([seen, reached[row, place]])
    _, where = distinct(wave, both)
    old = torch.zeros(int(where.max()) + 1, dtype=torch.bool, device=x.device)
    old[where[: len(seen)]] = True
    kept = torch.zeros(len(old), dtype=torch.int64, device=x.device)
    kept[where] = torch.arange(len(both), device=x.device)
    _, psi, image = images(operator, wave, both[kept])
    rest = (image - float(energy) * psi).abs().square()
    total = float(psi[old].abs().square().sum())
    missed = float(rest[~old].sum()) / total if total else math.inf
    return missed if math.isfinite(missed) else math.inf
