"""By how much a step turns the state, and steps made short enough: measured, not predicted."""

import math

import torch
from torch import Tensor

from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.wave import Wave

TRIES = 12
HOPELESS = 3
"""So many tries where the wave is not finite any more."""


def bounded_step(wave: Wave, drawn: Samples, update: Tensor, angle: float | None) -> tuple[Tensor, float]:
    """Moves the wave by the update, or by as much of it as turns the state by no more than `angle` radians.

    Returns the update made and the angle arccos √F between the states before and after, F being the fidelity that the
    drawn configurations give: |⟨r⟩|²/⟨|r|²⟩ with r = ψ'/ψ, exact on full sums. An update that is not finite is not
    made.
    """
    if not bool(torch.isfinite(torch.view_as_real(update) if update.is_complex() else update).all()):
        return update, math.nan
    start, before = wave.vector(), _state(wave, drawn)
    weights = None if drawn.weights is None else drawn.weights.flatten().to(before.device)
    turned = 0.0
    for attempt in range(TRIES):
        wave.set_vector(start + update)
        after = _state(wave, drawn)
        turned = apart(before, after) if drawn.complete else between(before, after, weights)
        last = attempt == (TRIES if math.isfinite(turned) else HOPELESS) - 1
        if angle is None or turned <= angle or last:
            break
        # The angle grows like the step, or faster: a little less than in proportion, and at least a tenth of it.
        update = update * min(0.7, max(0.1, 0.95 * angle / turned)) if math.isfinite(turned) else update * 0.1
    return update, turned


def apart(before: Tensor, after: Tensor) -> float:
    """The angle between two normalised vectors: arcsin ‖b − ⟨a|b⟩a‖, exact where they are close."""
    rest = after - (before.conj() * after).sum() * before
    size = float(rest.norm())
    return math.asin(min(1.0, size)) if math.isfinite(size) else math.nan


def between(before: Tensor, after: Tensor, weights: Tensor | None) -> float:
    """The angle between two states from their log-amplitudes (n,) on configurations drawn from the first."""
    seen = before.real > -torch.inf
    change = (after - before)[seen]
    if not len(change) or bool(torch.isnan(change.abs()).any()):
        return math.nan
    ratio = torch.exp(change - change.real.max())
    weights = torch.ones_like(ratio.real) if weights is None else weights[seen]
    weights = weights / weights.sum()
    rest = (weights * (ratio - (weights * ratio).sum()).abs().square()).sum()
    share = float(rest / (weights * ratio.abs().square()).sum())
    return math.asin(math.sqrt(min(1.0, share))) if math.isfinite(share) else math.nan


def _state(wave: Wave, drawn: Samples) -> Tensor:
    """The amplitudes on a full sum, else log-amplitudes of what was drawn."""
    if drawn.complete:
        return wave.amplitudes()
    log = wave.log_and_sign(drawn.flat)[0]
    return log.to(torch.complex128 if log.is_complex() else torch.float64)
