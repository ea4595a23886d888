"""Which form and rank for which layer: one Lagrangian over all layers, Σ error + λ Σ cost.

Each layer is free to stay dense.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ketwork.networks.compression.forms import Form

_BISECTIONS = 100
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Choice:
    """One thing to do with a layer: its form, what that costs and the KL that it adds."""

    form: Form
    cost: float
    error: float


def pareto(choices: Sequence[Choice]) -> list[Choice]:
    """The first choice, and of the others those that cost less than all with no more error; by falling cost."""
    kept: list[Choice] = []
    least = math.inf
    for choice in sorted(choices[1:], key=lambda one: (one.error, one.cost)):
        if choice.cost < least:
            kept.append(choice)
            least = choice.cost
    return [choices[0], *kept]


def allocate(choices: Sequence[Sequence[Choice]], budget: float) -> list[Choice]:
    """One choice a layer, Σ cost ≤ budget, with Σ error as small as a multiplier and a greedy filling make it.

    Exact wherever the budget meets the lower convex hull of what can be reached; in between, what is left over is
    spent on what saves the most error per cost.

    Raises:
        ValueError: even the cheapest choices cost more than the budget; or something is not finite.

    >>> from ketwork.networks.compression.forms import DENSE
    >>> one = Form("outputs", 1)
    >>> layers = [[Choice(DENSE, 10, 0), Choice(one, 2, 3)], [Choice(DENSE, 10, 0), Choice(one, 2, 8)]]
    >>> [choice.form.rank for choice in allocate(layers, budget=12)]
    [1, None]
    """
    if not all(math.isfinite(choice.error) and math.isfinite(choice.cost) for c in choices for choice in c):
        raise ValueError("Argument `choices` must have finite costs and errors.")
    cheapest = sum(min(choice.cost for choice in layer) for layer in choices)
    if cheapest > budget * (1 + _ROUNDING):
        raise ValueError(
            f"The layers cost {cheapest:.6g} at the least, which is above the budget of {budget:.6g}."
        )
    budget = max(budget, cheapest)
    taken = _at(choices, 0.0)
    if _cost(taken) > budget:
        low, high = 0.0, 1.0
        while _cost(_at(choices, high)) > budget:
            low, high = high, 4 * high
        for _ in range(_BISECTIONS):
            middle = (low * high) ** 0.5 if low else high / 16
            if _cost(_at(choices, middle)) > budget:
                low = middle
            else:
                high = middle
        taken = _at(choices, high)
    return _filled(choices, taken, budget)


def _at(choices: Sequence[Sequence[Choice]], multiplier: float) -> list[Choice]:
    if multiplier == 0:
        return [min(layer, key=lambda choice: (choice.error, choice.cost)) for layer in choices]
    return [
        min(layer, key=lambda choice: (choice.error + multiplier * choice.cost, choice.cost))
        for layer in choices
    ]


def _filled(choices: Sequence[Sequence[Choice]], taken: list[Choice], budget: float) -> list[Choice]:
    taken = list(taken)
    while True:
        left = budget - _cost(taken)
        best: tuple[float, int, Choice] | None = None
        for i, (layer, now) in enumerate(zip(choices, taken, strict=True)):
            for choice in layer:
                more = choice.cost - now.cost
                if more <= left and choice.error < now.error:
                    gain = (now.error - choice.error) / max(more, 1e-12)
                    if best is None or gain > best[0]:
                        best = gain, i, choice
        if best is None:
            return taken
        taken[best[1]] = best[2]


def _cost(taken: Sequence[Choice]) -> float:
    return sum(choice.cost for choice in taken)
