"""The network of a target: the best candidate at a share of the cost, or the smallest within a bound."""

from __future__ import annotations

import math
from collections.abc import Callable

from ketwork.networks.compression.arguments import Target
from ketwork.networks.compression.candidates import Candidate
from ketwork.networks.compression.result import Tried
from ketwork.networks.compression.search import SLOWER, Work

_ROUNDING = 1 + 1e-9
_CLOSE = 1.02  # the search ends where a network smaller by this factor is not within the bound
_HALVINGS = 6  # of the search by candidates that cost one evaluation each
_REFINED = 9  # sizes at most at which all candidates are made


def reached(work: Work, aim: Target) -> tuple[Candidate, list[Tried]]:
    """The network that the target asks for, and what was tried at its size.

    Raises:
        ValueError: nothing that was tried is within the bound, or the share cannot be reached; it says what can.
    """
    if aim.keep is not None:
        best, tried = at(work, aim.keep)
        if best is None:
            raise ValueError(_nothing(tried))
        return best, tried
    if aim.max_kl is not None:
        bound = aim.max_kl
        return _smallest(work, work.at_most, bound, math.log(bound) if bound > 0 else None)
    assert aim.max_drop is not None
    calibration = work.calibration
    before = calibration.accuracy(work.base)
    return _smallest(work, lambda one: before - calibration.accuracy(one.model), aim.max_drop, None)


def at(
    work: Work, keep: float, good: Callable[[Candidate], bool] = lambda _: True
) -> tuple[Candidate | None, list[Tried]]:
    """The best good candidate that keeps this share, None where none is good, and all that were tried."""
    if not work.reaches(keep):
        least = math.ceil(1000 * work.least) / 1000
        raise ValueError(
            f"Argument `keep` must be at least {least:.3f} of the {work.budget.kind} here, but is {keep}: "
            f"{work.budget.fixed / work.budget.total:.3f} are in modules that stay unchanged. Give a larger share."
        )
    best: tuple[tuple[bool, float], Candidate] | None = None
    tried: list[Tried] = []
    for candidate in work.candidates(keep * work.budget.total):
        kl = work.kl(candidate)
        cost = work.budget.measure(candidate.model)
        tried.append(Tried(candidate.name, kl, cost))
        late = cost > keep * work.budget.total * (SLOWER if work.budget.kind == "latency" else _ROUNDING)
        if (best is None or (late, kl) < best[0]) and good(candidate):
            best = (late, kl), candidate
    return (None if best is None else best[1]), tried


def _smallest(
    work: Work, loss: Callable[[Candidate], float], bound: float, logarithm: float | None
) -> tuple[Candidate, list[Tried]]:
    """The smallest network whose `loss` is within the bound, to 2 % of its size, and what was tried at its size.

    Candidates that cost one evaluation each bracket it; between the smallest share known to do and the largest known
    not
    to, all candidates are made, at shares that halve the gap, or, where the logarithm of the bound is given, where
    that of
    the loss, taken to be linear in that of the share, meets it.
    """
    total = work.budget.total
    low, high = work.least, 1.0
    known: dict[float, float] = {}  # the losses at shares
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        known[middle] = loss(work.quick(middle * total))
        low, high = (low, middle) if known[middle] <= bound else (middle, high)
    best, tried = at(work, high, lambda one: loss(one) <= bound)
    if best is None and high < 1:
        high = 1.0
        best, tried = at(work, high, lambda one: loss(one) <= bound)
    if best is None:
        raise ValueError(_nothing(tried))
    known = {high: loss(best)}
    low = work.least
    missed: dict[float, float] = {}
    for turn in range(_REFINED):
        if high <= low * _CLOSE:
            break
        share = _between(low, high, known.get(high), missed.get(low), logarithm, turn)
        smaller, others = at(work, share, lambda one: loss(one) <= bound)
        if smaller is None:
            low = share
            missed[share] = min(one.kl for one in others)
        else:
            best, tried, high = smaller, others, share
            known[share] = loss(smaller)
    return best, tried


def _between(
    low: float, high: float, inside: float | None, outside: float | None, logarithm: float | None, turn: int
) -> float:
    """The share to try next: halfway on a scale of ratios, or where a power law meets the bound."""
    halfway = math.sqrt(low * high)
    if logarithm is None or not inside or turn % 3 == 2:
        return halfway
    a = math.log(inside)
    if outside is None:  # losses fall with about the fourth power of the size
        guess = high * math.exp(-max(logarithm - a, 0.0) / 4)
    else:
        b = math.log(outside)
        part = (logarithm - a) / (b - a) if b > a else 0.5
        guess = high * (low / high) ** part
    margin = _CLOSE**0.75
    return min(max(guess, low * margin), high / margin)


def _nothing(tried: list[Tried]) -> str:
    least = min((one.kl for one in tried), default=math.inf)
    return (
        f"The bound cannot be met: nothing that was tried is within it. The least KL of any is {least:.3g} "
        "nats a prediction. Give a larger `max_kl` or `max_drop`."
    )
