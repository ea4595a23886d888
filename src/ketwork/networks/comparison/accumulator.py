"""`ComparisonAccumulator`: all that a pass gathered of pairs of layers; parts of other processes add up."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Any, Self

from ketwork.networks.comparison.result import ComparedLayer, Comparison
from ketwork.networks.moments import PairMoments
from ketwork.networks.runtime import Background


@dataclass
class ComparisonAccumulator:
    """What a pass over a part of the data gathered: moments of all pairs, the layers, and what was skipped."""

    pairs: PairMoments
    layers: list[tuple[list[str | int], ComparedLayer]]
    skipped: dict[str, str]

    def comparison(
        self,
        settings: dict[str, Any],
        measures: Collection[str] | None,
        center: bool,
        error: str | None,
        background: Background | None = None,
    ) -> Comparison:
        """The comparison that it makes, of the pairs that it reaches before the `background` is stopped."""
        named: dict[Hashable, ComparedLayer] = {tuple(key): layer for key, layer in self.layers}
        return Comparison.from_pairs(
            self.pairs,
            named,
            settings,
            self.skipped,
            measures=measures,
            center=center,
            error=error,
            background=background,
        )

    def add(self, other: Self, start: int | None = None) -> None:
        """Adds the part of another process; where its samples stand does not matter."""
        self.pairs += other.pairs
        known = {tuple(key) for key, _ in self.layers}
        self.layers += [(key, layer) for key, layer in other.layers if tuple(key) not in known]
        self.skipped = other.skipped | self.skipped
