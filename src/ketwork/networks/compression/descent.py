"""How many units and which rank for each layer: down the steepest way from the whole network to its budget.

What removing a layer's units saves depends on what becomes of the layers that read them and on its own rank, so that no
cost is a sum over choices. Each step takes the choice that loses the least per cost saved, at what the layers cost
as they are by then; what is left of the budget in the end is spent on what saves the most error per cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Value = int | None


@dataclass(frozen=True)
class Item:
    """Something to choose: the harm of each value, the one of no harm first, and the layers whose cost it moves."""

    name: tuple[str, str]
    errors: Mapping[Value, float]
    touches: tuple[str, ...]


@dataclass
class Descent:
    """The choice so far. `price(layer, chosen)` is what a layer costs at the chosen values, by item."""

    items: Sequence[Item]
    layers: Sequence[str]
    price: Callable[[str, Mapping[tuple[str, str], Value]], float]
    chosen: dict[tuple[str, str], Value] = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = {item.name: next(iter(item.errors)) for item in self.items}

    def to(self, room: float) -> dict[tuple[str, str], Value] | None:
        """The choice whose layers cost no more than `room`; None where the steps end above it."""
        total = sum(self.price(layer, self.chosen) for layer in self.layers)
        moves = {item.name: self._best(item, _down) for item in self.items}
        while total > room:
            possible = {name: move for name, move in moves.items() if move is not None}
            if not possible:
                return None
            name = min(possible, key=lambda name: possible[name][0])
            _, value, cost = possible[name]
            total += cost
            self.chosen[name] = value
            for item in self.items:
                if set(item.touches) & set(self._touched(name)):
                    moves[item.name] = self._best(item, _down)
        while True:
            left = room - total
            ups = {
                item.name: self._best(
                    item,
                    lambda harm, cost: harm / max(cost, 1e-12) if harm < 0 and cost <= left else None,  # noqa: B023
                )
                for item in self.items
            }
            better = {name: move for name, move in ups.items() if move is not None}
            if not better:
                return self.chosen
            name = min(better, key=lambda name: better[name][0])
            _, self.chosen[name], cost = better[name]
            total += cost

    def _touched(self, name: tuple[str, str]) -> tuple[str, ...]:
        return next(item.touches for item in self.items if item.name == name)

    def _best(
        self, item: Item, rate: Callable[[float, float], float | None]
    ) -> tuple[float, Value, float] | None:
        """The value of the lowest rate of harm and cost, both as changes, with that rate and the cost."""
        now = self.chosen[item.name]
        before = sum(self.price(layer, self.chosen) for layer in item.touches)
        best: tuple[float, Value, float] | None = None
        for value, error in item.errors.items():
            if value == now:
                continue
            cost = (
                sum(self.price(layer, {**self.chosen, item.name: value}) for layer in item.touches) - before
            )
            found = rate(error - item.errors[now], cost)
            if found is not None and (best is None or found < best[0]):
                best = found, value, cost
        return best


def _down(harm: float, cost: float) -> float | None:
    return harm / -cost if cost < 0 else None
