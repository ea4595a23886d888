"""The rules that raise alarms: each looks for one change of a layer, larger than sampling noise makes it.

A rule gets the looks so far and yields what it finds at the newest one. Its thresholds are fields.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar

from ketwork.networks.monitor.look import Key, LayerLook, Look, beyond
from ketwork.quantum import Estimate


class History:
    """The looks so far by layer; `newest` is the one that rules judge, `before` the one before it."""

    def __init__(self) -> None:
        self.before: Look | None = None
        self._newest: Look | None = None
        self._layers: dict[Key, list[tuple[int, LayerLook]]] = {}

    @property
    def newest(self) -> Look:
        """The look that was added last."""
        assert self._newest is not None
        return self._newest

    def add(self, look: Look) -> None:
        """A new look, which is the newest from now on."""
        for layer in () if self._newest is None else self._newest.layers:
            self._layers.setdefault(layer.key, []).append((self._newest.step, layer))  # type: ignore[union-attr]
        self.before, self._newest = self._newest, look

    def layers(self, layer: LayerLook) -> list[tuple[int, LayerLook]]:
        """The layer at the earlier looks, with their steps."""
        return self._layers.get(layer.key, [])

    def past(self, layer: LayerLook, quantity: str) -> list[tuple[int, Estimate]]:
        """The layer's earlier values with their steps, those that exist."""
        values = ((step, each.values.get(quantity, Estimate())) for step, each in self.layers(layer))
        return [(step, value) for step, value in values if not math.isnan(value)]

    def extreme(self, layer: LayerLook, quantity: str, best: Callable[..., Any]) -> tuple[int, Estimate]:
        """The largest (`max`) or smallest (`min`) earlier value with its step; NaN if there is none."""
        past = self.past(layer, quantity)
        value: tuple[int, Estimate] = best(past, key=lambda each: each[1].value) if past else (0, Estimate())
        return value


@dataclass(frozen=True)
class Change:
    """A layer's quantity, `before` at the step `since` and `after` now."""

    layer: LayerLook
    quantity: str
    since: int
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Rule(ABC):
    """What changes of layers an alarm is for; `errors` is how many standard errors a change must exceed."""

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    meaning: ClassVar[str]
    remedy: ClassVar[str]
    lasting: ClassVar[int] = 1
    """At how many looks in a row a change must be found."""

    @abstractmethod
    def __call__(self, history: History) -> Iterator[Change]:
        """The changes at the newest look."""


@dataclass(frozen=True)
class NotFinite(Rule):
    """NaN or infinite activations on some samples of the probe set, where there were none at the look before."""

    name = "not_finite"
    title = "NaN or infinite values"
    needs = ()
    meaning = "An overflow, or a division or logarithm of 0; from here on gradients are NaN too."
    remedy = (
        "Go back to a checkpoint, lower the learning rate, clip gradients, use bfloat16 in place of float16."
    )

    def __call__(self, history: History) -> Iterator[Change]:
        """The share of bad samples."""
        for layer in history.newest.layers:
            if layer.bad:
                past = history.layers(layer)
                since, before = (
                    (past[-1][0], _bad(past[-1][1])) if past else (history.newest.step, Estimate(0.0))
                )
                yield Change(layer, "bad samples", since, before, _bad(layer))


@dataclass(frozen=True)
class Collapse(Rule):
    """All inputs come to give nearly the same direction, or lie along a single one.

    Either the spread falls below `share` of its largest value so far and below `spread`, or the effective rank less 1
    below `share` of its largest value, and the rank below `rank`. Where the probe set has labels that a linear probe
    still reads as well as it did then, it is none: two classes may lie on one line.
    """

    share: float = 0.1
    spread: float = 0.01
    rank: float = 1.5
    errors: float = 4.0

    name = "collapse"
    title = "Representation collapse"
    needs = ("spread", "effective_rank")
    lasting = 2  # a network that begins with the mean of its targets passes through such a state
    meaning = "All inputs come to look alike to the network, as where one trivial solution has no loss."
    remedy = (
        "In self-supervised training check the stop-gradient, the predictor, and the variance or contrastive term; "
        "else lower the learning rate."
    )

    def __call__(self, history: History) -> Iterator[Change]:
        """Falls of the spread, or else of the effective rank."""
        limits = (("spread", 0, self.spread), ("effective_rank", 1, self.rank))
        for layer in history.newest.layers:
            for quantity, floor, least in limits:
                now = layer.values.get(quantity, Estimate())
                since, most = history.extreme(layer, quantity, max)
                fallen = now - floor < self.share * (most.value - floor) and now < least
                if fallen and beyond(most, now, self.errors) and not self._still_read(history, layer, since):
                    yield Change(layer, quantity, since, most, now)
                    break

    def _still_read(self, history: History, layer: LayerLook, since: int) -> bool:
        now = layer.values.get("linear_balanced", Estimate())
        before = dict(history.past(layer, "linear_balanced")).get(since, Estimate())
        return not math.isnan(before + now.value) and (now >= before or not beyond(before, now, self.errors))


@dataclass(frozen=True)
class Dying(Rule):
    """The share of dead neurons rises by more than `rise` above its smallest value so far."""

    rise: float = 0.25
    errors: float = 4.0

    name = "dying"
    title = "Dying neurons"
    needs = ("dead",)
    meaning = "Neurons that are 0 on every input get no gradient and stay dead."
    remedy = "Lower the learning rate or warm it up, use GELU or LeakyReLU, check the initial biases."

    def __call__(self, history: History) -> Iterator[Change]:
        """Rises of the share."""
        for layer in history.newest.layers:
            now = layer.values.get("dead", Estimate())
            since, least = history.extreme(layer, "dead", min)
            if now - least.value > self.rise and beyond(least, now, self.errors):
                yield Change(layer, "dead", since, least, now)


@dataclass(frozen=True)
class TokenCollapse(Rule):
    """Positions of a sample come to hold nearly the same ket: rank collapse above `most`, by `rise` above its least."""

    most: float = 0.95
    rise: float = 0.15
    errors: float = 4.0

    name = "token_collapse"
    title = "Token rank collapse"
    needs = ("rank_collapse",)
    meaning = (
        "All tokens of a sample become alike (over-smoothing), so that attention has nothing to choose from."
    )
    remedy = "Check residual connections and their scale, normalisation, the attention's temperature; warm the rate up."

    def __call__(self, history: History) -> Iterator[Change]:
        """Rises of the rank collapse."""
        for layer in history.newest.layers:
            now = layer.values.get("rank_collapse", Estimate())
            since, least = history.extreme(layer, "rank_collapse", min)
            if now > self.most and now - least.value > self.rise and beyond(least, now, self.errors):
                yield Change(layer, "rank_collapse", since, least, now)


@dataclass(frozen=True)
class Explosion(Rule):
    """The mean norm grows by more than a factor `fast` from one look to the next, or `first` since the training began.

    Between the first two looks a healthy network grows too, from its initial weights on, so `first` holds there.
    """

    fast: float = 10.0
    first: float = 1000.0
    errors: float = 4.0

    name = "explosion"
    title = "Exploding norms"
    needs = ("norm",)
    meaning = "Activations grow without bound; NaN follows, or saturated functions without gradients."
    remedy = "Lower the learning rate, clip gradients, add warm-up or normalisation; look for outliers in the data."

    def __call__(self, history: History) -> Iterator[Change]:
        """Growth of the norm."""
        for layer in history.newest.layers:
            now = layer.values.get("norm", Estimate())
            past = history.past(layer, "norm")
            # Of the first two looks the later one is the reference: a head that starts near 0 grows from nothing.
            pairs = [(self.first, past[min(1, len(past) - 1)])] if past else []
            pairs += [(self.fast, past[-1])] if len(past) > 1 else []
            for factor, (since, before) in reversed(pairs):
                if 0 < factor * before < now and beyond(before, now, self.errors):
                    yield Change(layer, "norm", since, before, now)
                    break


@dataclass(frozen=True)
class Vanishing(Rule):
    """The mean norm falls below `share` of its largest value so far."""

    share: float = 0.02
    errors: float = 4.0

    name = "vanishing"
    title = "Vanishing norms"
    needs = ("norm",)
    meaning = "Activations shrink towards 0, and with them gradients and the differences between outputs."
    remedy = (
        "Lower the weight decay, look for a scale that decays, add normalisation or residual connections."
    )

    def __call__(self, history: History) -> Iterator[Change]:
        """Falls of the norm."""
        for layer in history.newest.layers:
            now = layer.values.get("norm", Estimate())
            since, most = history.extreme(layer, "norm", max)
            if now < self.share * most.value and beyond(most, now, self.errors):
                yield Change(layer, "norm", since, most, now)


@dataclass(frozen=True)
class Forgetting(Rule):
    """The labels come to be read worse from the last layer of which they are read: by more than `fall`, at two looks.

    It needs a probe set with labels.
    """

    fall: float = 0.2
    errors: float = 4.0

    name = "forgetting"
    title = "Labels forgotten"
    needs = ("linear_balanced",)
    lasting = 2
    meaning = "What the network knew of the labels is lost on its way to the output."
    remedy = "Go back to the checkpoint of the best look, lower the learning rate or the weight decay."

    def __call__(self, history: History) -> Iterator[Change]:
        """A fall of the linear probe's score."""
        read = [
            x for x in history.newest.layers if not math.isnan(x.values.get("linear_balanced", Estimate()))
        ]
        for layer in read[-1:]:
            now = layer.values["linear_balanced"]
            since, most = history.extreme(layer, "linear_balanced", max)
            if most - now.value > self.fall and beyond(most, now, self.errors):
                yield Change(layer, "linear_balanced", since, most, now)


@dataclass(frozen=True)
class Stopped(Rule):
    """A layer's parameters stand still, below `share` of the other layers' median change, at two looks in a row.

    Where those of all layers stand still, to the last bit, it is one change, of the last layer.
    """

    share: float = 1e-3
    layers: int = 3

    name = "stopped"
    title = "A layer that stopped learning"
    needs = ("parameter_change",)
    meaning = (
        "No gradient reaches its parameters, while the other layers learn; or the training stands still."
    )
    remedy = (
        "Look for dead neurons or saturated functions behind it, a detached tensor, parameters that the optimizer does "
        "not have; freeze it (`requires_grad_(False)`) where that is meant."
    )

    def __call__(self, history: History) -> Iterator[Change]:
        """Changes of the parameters beside those of other layers."""
        if history.before is None:
            return
        still = [self._still(look) for look in (history.before, history.newest)]
        for layer in history.newest.layers:
            if all(layer.key in keys for keys in still):
                since, most = history.extreme(layer, "parameter_change", max)
                yield Change(layer, "parameter_change", since, most, layer.values["parameter_change"])

    def _still(self, look: Look) -> set[Key]:
        changes = {
            layer.key: value
            for layer in look.layers
            if not math.isnan(value := layer.values.get("parameter_change", Estimate()))
        }
        if len(changes) < self.layers:
            return set()
        if not any(changes.values()):
            return {list(changes)[-1]}
        level = self.share * median(changes.values())
        return {
            key for key, value in changes.items() if value < level or value == 0 < median(changes.values())
        }


@dataclass(frozen=True)
class Memorisation(Rule):
    """Labels of samples trained on come to be read better than those of others: by more than `gap`.

    The gap must have risen by `rise` above its smallest value so far. It needs `held_out` samples.
    """

    gap: float = 0.1
    rise: float = 0.1
    errors: float = 4.0

    name = "memorisation"
    title = "Memorisation"
    needs = ("linear_gap",)
    meaning = "The layer tells the labels of samples that it was trained on, and not as well those of others."
    remedy = "Stop here or go back to an earlier checkpoint; add data, augmentation or decay; look for wrong labels."

    def __call__(self, history: History) -> Iterator[Change]:
        """Rises of the gap between both linear probes."""
        for layer in history.newest.layers:
            now = layer.values.get("linear_gap", Estimate())
            since, least = history.extreme(layer, "linear_gap", min)
            wide = now > self.gap and beyond(Estimate(0.0), now, self.errors)
            if wide and now - least.value > self.rise and beyond(least, now, self.errors):
                yield Change(layer, "linear_gap", since, least, now)


_ALL = (
    *(NotFinite(), Collapse(), Dying(), TokenCollapse(), Explosion(), Vanishing()),
    *(Stopped(), Forgetting(), Memorisation()),
)

RULES: dict[str, Rule] = {rule.name: rule for rule in _ALL}
"""The rules that hold unless others are given, by name."""


def _bad(layer: LayerLook) -> Estimate:
    total = layer.samples + layer.bad
    return Estimate(layer.bad / total) if total else Estimate(0.0)
