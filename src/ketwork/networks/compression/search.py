"""The candidates that come of a prepared network at a given cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ketwork._lazy import cached_property
from ketwork.networks.activations import Batch
from ketwork.networks.compression.allocation import Choice, allocate
from ketwork.networks.compression.budgets import Budget
from ketwork.networks.compression.calibration import Calibration, picked
from ketwork.networks.compression.candidates import Candidate, LayerChange
from ketwork.networks.compression.dead import Trimmed
from ketwork.networks.compression.fits import Fits, Forms, Variant, all_dense, one_shot, sequential
from ketwork.networks.compression.forms import DENSE
from ketwork.networks.compression.healing import healed
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.restructuring import Apart
from ketwork.networks.compression.survey import Survey
from ketwork.networks.compression.unit_removal import Narrowing, lowest, planned
from ketwork.networks.runtime import give_back
from ketwork.quantum import Estimate

_HELD = 4  # times a layer's input and output: what one forward pass is taken to hold at one depth
_RUINED = 1e6  # nats: more than any prediction can be worth
SLOWER = 1.02  # a latency above the budget by less is noise
_REPLANNED = 3  # times that a network is planned anew because it was timed to be too slow
_PROBES = 0.5  # passes spent on measuring what each layer's truncation really costs, and what removals do
_LITTLE = 0.1  # of the mean KL that removals are estimated to add
_ERRORS = 2.0  # standard errors by which a bound is kept
_ALIKE = 1.5  # costs that differ by less share what was measured


@dataclass(frozen=True)
class _Plan:
    """How a candidate is fitted in sequence, and the units that stay of each feed."""

    variant: Variant
    units: Mapping[str, int] | None = None
    states: Mapping[str, int] = field(default_factory=dict)

    def without_fits(self) -> _Plan:
        """The plan of a candidate that is not the best, whose own moments and factors nobody needs any more."""
        return replace(self, variant=replace(self.variant, fits=None))


@dataclass
class Work:
    """The network's copy with what was learnt of it.

    `left` says why modules stay unchanged, `staying` why no units of a layer can be removed, by path; `trimmed` what
    was dead; `heal` are steps of training for the best candidate.
    """

    base: nn.Module
    layers: Sequence[WeightLayer]
    left: dict[str, str]
    folded: dict[str, str]
    calibration: Calibration
    survey: Survey
    fits: Fits
    budget: Budget
    narrowing: Narrowing
    multiple_of: int
    memory: int
    apart: Apart
    staying: Mapping[str, str]
    trimmed: Trimmed
    heal: int = 0
    _kls: WeakKeyDictionary[nn.Module, Estimate] = field(default_factory=WeakKeyDictionary)
    _measured: dict[str, tuple[float, dict[str, float]]] = field(default_factory=dict)

    @cached_property
    def cheapest(self) -> float:
        """The least that all layers can cost by their forms, all units staying."""
        return sum(min(choice.cost for choice in layer) for layer in self._choices(self._estimated()))

    def reaches(self, share: float) -> bool:
        """Whether that share can be reached: by forms alone or, which takes longer to know, by removing units too."""
        return share * self.budget.total >= self.budget.fixed + self.cheapest or share >= self.least

    @cached_property
    def least(self) -> float:
        """The least share of the whole that can be reached, by forms and by removing units."""
        result = self.cheapest
        if self.narrowing.feeds and self.budget.kind != "latency":
            result = min(result, lowest(self.narrowing, self.budget, self.multiple_of))
        return (self.budget.fixed + result) / self.budget.total

    def quick(self, cost: float) -> Candidate:
        """The network at that cost, each layer fitted by itself, with the metric."""
        limit = cost - self.budget.fixed
        made = self._cut("two-sided", self._estimated(), True, limit)
        if made is None:
            made = self._removal("removal and ranks", self._estimated(), {}, limit)
        if made is None:
            raise ValueError(f"There is nothing that costs {cost:.6g} or less.")
        return made[0]

    def candidates(self, cost: float) -> Iterator[Candidate]:
        """All candidates at that cost, one at a time, the best of them trained in the end where `heal` says so."""
        best: Candidate | None = None
        for candidate in self._fitted(cost):
            give_back()
            yield candidate
            if best is None or self.kl(candidate) < self.kl(best):
                best = candidate
        if self.heal and best is not None:
            model = healed(self.base, best.model, self.calibration, self.heal)
            yield Candidate(f"{best.name}, healed", model, best.changes)

    def _fitted(self, cost: float) -> Iterator[Candidate]:
        """Those without training: layers fitted by themselves, then the best in sequence."""
        plans: list[tuple[float, str, _Plan]] = []

        def made(plan: Callable[[float], tuple[Candidate, _Plan] | None]) -> Iterator[Candidate]:
            result = self._within(cost, plan)
            if result is not None:
                candidate, how = result
                plans.append((self.kl(candidate), candidate.name, how))
                best = min(plans, key=lambda one: one[0])
                plans[:] = [one if one is best else (*one[:2], one[2].without_fits()) for one in plans]
                yield candidate

        limit = cost - self.budget.fixed
        estimated = self._estimated()
        trusted = estimated
        scales = estimated
        if limit >= self.cheapest or self.budget.kind == "latency":
            forms = self._forms(max(limit, self.cheapest), estimated)
            scales = self._scales(cost, forms)
            yield from made(partial(self._cut, "one-sided", estimated, False))
            yield from made(partial(self._cut, "two-sided", estimated, True))
            if self._forms(max(limit, self.cheapest), scales) != forms:
                yield from made(partial(self._cut, "two-sided, measured ranks", scales, True))
                if len(plans) == 3:
                    trusted = min((plans[1], estimated), (plans[2], scales), key=lambda one: one[0][0])[1]
        yield from made(partial(self._removal, "removal", None, {}))
        yield from made(partial(self._removal, "removal and ranks", trusted, {}))
        if plans:
            _, name, plan = plans[-1]
            if name == "removal and ranks" and plan.units:
                measured = self._unit_scales(cost, plan.units)
                yield from made(partial(self._removal, "removal and ranks, all measured", scales, measured))
            _, name, plan = min(plans, key=lambda one: one[0])
            step = self.in_step()
            part = min(2**24, max(self.memory // 8, 2**16))
            model, missed = sequential(self.base, self.fits, plan.variant, self.calibration, step, part)
            yield self._candidate(
                f"sequential, {name}", model, plan.variant.forms, missed, plan.units, plan.states
            )

    def _within(
        self, cost: float, plan: Callable[[float], tuple[Candidate, _Plan] | None]
    ) -> tuple[Candidate, _Plan] | None:
        """What `plan` makes of the limit for layers at that cost: of a lower limit while it was timed to be too slow.

        Together, layers cost something else than what each was timed at.
        """
        limit, result = cost - self.budget.fixed, None
        for _ in range(_REPLANNED):
            made = plan(limit)
            if made is None:
                break
            result = made
            if self.budget.kind != "latency":
                break
            measured = self.budget.measure(result[0].model)
            if measured <= cost * SLOWER:
                break
            limit *= cost / measured
        return result

    def _cut(
        self, name: str, scales: Mapping[str, float], weighted: bool, limit: float
    ) -> tuple[Candidate, _Plan] | None:
        """A network with all its units, in the metric or without; None where the limit is less than that takes.

        Of a latency the cheapest is made nevertheless, since in the network it may cost less than alone.
        """
        if limit < self.cheapest:
            if self.budget.kind != "latency":
                return None
            limit = self.cheapest
        forms = self._forms(limit, scales)
        model = one_shot(self.base, self.fits, forms, weighted)
        return self._candidate(name, model, forms), _Plan(Variant(forms, weighted))

    def _removal(
        self,
        name: str,
        scales: Mapping[str, float] | None,
        of_units: Mapping[str, float],
        limit: float,
    ) -> tuple[Candidate, _Plan] | None:
        """A network with units removed and, given `scales`, ranks; None where nothing can be, or not so much."""
        chosen = planned(self.narrowing, self.budget, limit, self.multiple_of, scales, of_units)
        if chosen is None or not (chosen[1] or chosen[2]):
            return None
        forms, units, states = chosen
        fits = self.narrowing.narrowed(units, states)
        model = one_shot(self.base, fits, forms, True)
        candidate = self._candidate(name, model, forms, units=units, states=states)
        return candidate, _Plan(Variant(forms, True, fits), units, states)

    def kl(self, candidate: Candidate) -> float:
        """Its KL from the original on data held back, measured once."""
        return self.estimate(candidate).value

    def estimate(self, candidate: Candidate) -> Estimate:
        """That with its standard error."""
        if candidate.model not in self._kls:
            self._kls[candidate.model] = self.calibration.estimate(candidate.model)
        return self._kls[candidate.model]

    def at_most(self, candidate: Candidate) -> float:
        """The KL that it has at most, to two standard errors of the data held back."""
        result = self.estimate(candidate)
        return result.value + _ERRORS * result.stderr if math.isfinite(result.value) else math.inf

    def in_step(self) -> list[Batch]:
        """The batches whose activations fit into the memory, at one depth of the original and of its twin.

        Where not all do, they are evenly spaced over the data; where not even one does, it is as much of that as does.
        """
        batches, held = self.calibration.fit, [2 * _HELD * held for held in self.calibration.held]
        count = len(batches)
        while True:
            chosen = [i * len(batches) // count for i in range(count)]
            size = sum(held[i] for i in chosen)
            if size <= self.memory:
                return [batches[i] for i in chosen]
            if count == 1:
                some = max(1, batches[0].size * self.memory // size)
                return [picked(batches[0], torch.arange(some))]
            count = max(1, min(count - 1, int(count * self.memory / size)))

    def _choices(self, scales: Mapping[str, float]) -> list[list[Choice]]:
        return [self.fits.choices(layer, self.budget, scales[layer.path]) for layer in self.layers]

    def _forms(self, limit: float, scales: Mapping[str, float]) -> Forms:
        choices = allocate(self._choices(scales), limit)
        return {layer.path: choice.form for layer, choice in zip(self.layers, choices, strict=True)}

    def _estimated(self) -> dict[str, float]:
        """1 for each layer; of those without gradients what makes its whole weight 1: no more is known before it is
        measured."""
        scales = {}
        for layer in self.layers:
            known = self.survey.layers[layer.path].fisher is not None
            total = 0.0 if known else self.fits.reductions(layer, True).total
            scales[layer.path] = 2 / total if total > 0 else 1.0
        return scales

    def _scales(self, cost: float, forms: Forms) -> dict[str, float]:
        """Each layer's measured KL over the estimate, cut alone: in its form, or in the middle one of the possible.

        Measured once for all costs that are not far apart.
        """
        known = self._measured.get("forms")
        if known is not None and max(known[0] / cost, cost / known[0]) < _ALIKE:
            return known[1]
        choices = self._choices(dict.fromkeys(forms, 1.0))
        probed = [(layer, mine) for layer, mine in zip(self.layers, choices, strict=True) if len(mine) > 1]
        scales = {layer.path: 1.0 for layer in self.layers}
        alone = all_dense(self.layers)
        for layer, mine in probed:
            form = forms[layer.path]
            if form == DENSE:
                form = mine[len(mine) // 2].form
            model = one_shot(self.base, self.fits, {**alone, layer.path: form}, True)
            estimate = self.fits.reductions(layer, True).error(form) / 2
            scales[layer.path] = self._ratio(model, estimate, len(probed))
        self._measured["forms"] = cost, scales
        return scales

    def _unit_scales(self, cost: float, units: Mapping[str, int]) -> dict[str, float]:
        """Each feed's measured KL over the estimate, where it alone keeps no more than so many units.

        Feeds whose KL is a small part of all are skipped: what it grows to is not to be distinguished from it.
        """
        known = self._measured.get("units")
        if known is not None and max(known[0] / cost, cost / known[0]) < _ALIKE:
            return known[1]
        feeds = [feed for feed in self.narrowing.feeds if feed.path in units]
        estimates = {feed.path: self.narrowing.order(feed).error(units[feed.path]) / 2 for feed in feeds}
        probed = {path: kl for path, kl in estimates.items() if kl > _LITTLE * fmean(estimates.values())}
        scales = {}
        for path, estimate in probed.items():
            model = one_shot(
                self.base, self.narrowing.narrowed({path: units[path]}), all_dense(self.layers), True
            )
            scales[path] = self._ratio(model, estimate, len(probed))
        self._measured["units"] = cost, scales
        return scales

    def _ratio(self, model: nn.Module, estimate: float, probes: int) -> float:
        """The network's KL over the estimate of it, as seen on the samples that one of so many probes may take."""
        samples = max(1, int(_PROBES * self.calibration.samples / probes))
        kl = min(self.calibration.kl(model, samples), _RUINED)
        return kl / estimate if estimate > 0 else 1.0

    def _candidate(
        self,
        name: str,
        model: nn.Module,
        forms: Forms,
        missed: frozenset[str] = frozenset(),
        units: Mapping[str, int] | None = None,
        states: Mapping[str, int] | None = None,
    ) -> Candidate:
        changes: dict[str, LayerChange] = {}
        of = {path: feed for feed in self.narrowing.feeds for path in feed.sources}
        scales = self._estimated()
        for layer in self.layers:
            form, feed = forms[layer.path], of.get(layer.path)
            count = None if units is None or feed is None else units.get(feed.path)
            notes = [self.trimmed.notes[layer.path]] if layer.path in self.trimmed.notes else []
            notes += ["fitted by itself"] if layer.path in missed and not notes else []
            rank = None if feed is None or not layer.repeated else (states or {}).get(feed.path)
            if rank is not None:
                notes.append(f"state truncated to {rank}")
            increase = discarded = 0.0
            kept = self.trimmed.units.get(layer.path)
            if form != DENSE:
                reductions = self.fits.reductions(layer, True)
                increase += scales[layer.path] * reductions.error(form) / 2
                discarded = reductions.share(form)
            if count is not None and feed is not None:
                order = self.narrowing.order(feed)
                block = feed.sources[layer.path].shape[1]
                notes.append(
                    f"{count} of {feed.units} {'units' if block == 1 else f'blocks of {block} units'} kept"
                )
                kept = count * block
                discarded = 1 - (1 - discarded) * (1 - order.share(count))
                if layer.path == feed.path:
                    increase += order.error(count) / 2
                else:
                    notes.append(f"with {feed.path}")
            if rank is not None and feed is not None:
                increase = self.narrowing.state(feed).error(min(rank, feed.units)) / 2
            if form == DENSE and count is None and rank is None and not notes:
                note, refitted = self._why_dense(layer, units, states or {})
                same = LayerChange(note=note, unchanged=not refitted)
                changes |= {part.path: same for part in layer.parts}
                continue
            if not self.survey.differentiable:
                increase = float("nan")
            changes[layer.path] = LayerChange(form, discarded, increase, "; ".join(notes), kept)
            for part in layer.parts[1:]:
                changes[part.path] = LayerChange(
                    form, discarded, note=f"with {layer.path}: one weight for both"
                )
        return Candidate(name, model, changes)

    def _why_dense(
        self, layer: WeightLayer, units: Mapping[str, int] | None, states: Mapping[str, int]
    ) -> tuple[str, bool]:
        """Why a layer's matrix stays one with all its units, and whether it was refitted."""
        feeds = [feed.path for feed in self.narrowing.feeds if layer.path in feed.readers]
        gone = [path for path in feeds if path in (units or {}) or path in states]
        if gone:
            return f"reads what is left of {', '.join(gone)}", True
        if self.budget.kind == "latency":
            seconds = self.budget.seconds[layer.path]
            if all(price >= seconds[DENSE] for price in seconds.values()):
                return "left dense: any two factors were timed to be slower", False
        return "left dense", False
