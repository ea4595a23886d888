"""How many units and which form for each layer: down the steepest way from the whole network to its budget.

What removing a layer's units saves depends on what becomes of the layers that read them and on its own form, so that no
cost is a sum over choices. Each step takes the choice that loses the least per cost saved, at what the layers cost
as they are by then; what is left of the budget in the end is spent on what saves the most error per cost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

Name = tuple[str, str]
Move = tuple[float, Hashable, float]  # the rate, the value, and the change of the cost


@dataclass(frozen=True)
class Item:
    """Something to choose: the error of each value, the one of no error first, and the layers whose cost it moves."""

    name: Name
    errors: Mapping[Hashable, float]
    touches: tuple[str, ...]


@dataclass
class Descent:
    """The choice so far. `price(layer, chosen)` is what a layer costs at the chosen values, by item."""

    items: Sequence[Item]
    layers: Sequence[str]
    price: Callable[[str, Mapping[Name, Hashable]], float]
    chosen: dict[Name, Hashable] = field(init=False)
    total: float = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = {item.name: next(iter(item.errors)) for item in self.items}
        self.total = sum(self.price(layer, self.chosen) for layer in self.layers)
        self._near: dict[Name, list[Item]] = {
            item.name: [other for other in self.items if set(other.touches) & set(item.touches)]
            for item in self.items
        }
        self._moves = {item.name: self._best(item, _down) for item in self.items}

    def to(self, limit: float) -> dict[Name, Hashable] | None:
        """The choice whose layers cost no more than `limit`; None where the steps end above it.

        The descent may continue from there to a lower limit, but for what was spent in the end.
        """
        while self.total > limit:
            possible = [(move, name) for name, move in self._moves.items() if move is not None]
            if not possible:
                return None
            (_, value, cost), name = min(possible, key=lambda one: one[0][0])
            self._take(name, value, cost)
        return self._filled(limit)

    def _take(self, name: Name, value: Hashable, cost: float) -> None:
        self.total += cost
        self.chosen[name] = value
        for item in self._near[name]:
            self._moves[item.name] = self._best(item, _down)

    def _filled(self, limit: float) -> dict[Name, Hashable]:
        """What is left of the limit spent: that does not change the descent itself."""
        before = dict(self.chosen), self.total, dict(self._moves)

        def up(error: float, cost: float) -> float | None:
            return error / max(cost, 1e-12) if error < 0 and cost <= limit - self.total else None

        ups = {item.name: self._best(item, up) for item in self.items}
        by_name = {item.name: item for item in self.items}
        while True:
            better = [(move, name) for name, move in ups.items() if move is not None]
            if not better:
                break
            (_, value, cost), name = min(better, key=lambda one: one[0][0])
            if cost > limit - self.total:  # what others took is gone
                ups[name] = self._best(by_name[name], up)
                continue
            self.total += cost
            self.chosen[name] = value
            for item in self._near[name]:
                ups[item.name] = self._best(item, up)
        result = self.chosen
        self.chosen, self.total, self._moves = before
        return result

    def _best(self, item: Item, rate: Callable[[float, float], float | None]) -> Move | None:
        """The value of the lowest rate of error and cost, both as changes, with that rate and the cost."""
        now = self.chosen[item.name]
        before = sum(self.price(layer, self.chosen) for layer in item.touches)
        best: Move | None = None
        for value, error in item.errors.items():
            if value == now:
                continue
            self.chosen[item.name] = value
            cost = sum(self.price(layer, self.chosen) for layer in item.touches) - before
            result = rate(error - item.errors[now], cost)
            if result is not None and (best is None or result < best[0]):
                best = result, value, cost
        self.chosen[item.name] = now
        return best


def _down(error: float, cost: float) -> float | None:
    return error / -cost if cost < 0 else None
