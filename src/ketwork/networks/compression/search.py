"""A network prepared to be made smaller, and the candidates that come of it at a given cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ketwork.networks.activations.batches import Batch
from ketwork.networks.activations.selectors import Layers, select
from ketwork.networks.compression.allocation import allocate
from ketwork.networks.compression.budgets import Budget, budget, measures
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.candidates import Candidate, LayerChange
from ketwork.networks.compression.fits import WIDEST_INPUT, Fits, Ranks, Variant, one_shot, sequential
from ketwork.networks.compression.layers import WeightLayer, weight_layers
from ketwork.networks.compression.surgery import fold_batchnorm, read_directly
from ketwork.networks.compression.survey import Survey, survey
from ketwork.networks.compression.unit_removal import Narrowing, planned, usable
from ketwork.networks.compression.units import feeds
from ketwork.networks.runtime.distributed import Processes

_HELD = 4  # times a layer's input and output: what one forward pass is taken to hold at one depth
_RUINED = 1e6  # nats: more than any prediction can be worth
SLOWER = 1.02  # a latency above the budget by less is noise
_REPLANNED = 3  # times that a network is planned anew because it was timed to be too slow
_PROBES = 0.5  # passes spent on measuring what each layer's truncation really costs, and what removals do
_LITTLE = 0.1  # of the mean harm that removals are estimated to do


@dataclass(frozen=True)
class _Plan:
    """How a candidate is fitted in sequence, and the units that stay of each feed."""

    variant: Variant
    units: Mapping[str, int] | None = None


@dataclass
class Work:
    """The network's copy with what was learnt of it. `left` says why modules were left alone, by path."""

    base: nn.Module
    layers: Sequence[WeightLayer]
    left: dict[str, str]
    folded: dict[str, str]
    calibration: Calibration
    survey: Survey
    fits: Fits
    budget: Budget
    narrowing: Narrowing
    multiple: int
    memory: int
    _kls: WeakKeyDictionary[nn.Module, float] = field(default_factory=WeakKeyDictionary)

    def quick(self, cost: float) -> Candidate:
        """The network at that cost, each layer fitted by itself, with the metric."""
        return self._cut("two-sided", self._estimated(), True, cost - self.budget.fixed)[0]

    def candidates(self, cost: float) -> Iterator[Candidate]:
        """All candidates at that cost, one at a time: layers fitted by themselves, then the best in sequence."""
        plans: list[tuple[float, str, _Plan]] = []

        def made(plan: Callable[[float], tuple[Candidate, _Plan] | None]) -> Iterator[Candidate]:
            found = self._within(cost, plan)
            if found is not None:
                candidate, how = found
                plans.append((self.kl(candidate), candidate.name, how))
                yield candidate

        estimated = self._estimated()
        ranks = self._ranks(cost - self.budget.fixed, estimated)
        scales = self._scales(ranks)
        yield from made(partial(self._cut, "one-sided", estimated, False))
        yield from made(partial(self._cut, "two-sided", estimated, True))
        trusted = estimated
        if self._ranks(cost - self.budget.fixed, scales) != ranks:
            yield from made(partial(self._cut, "two-sided, measured ranks", scales, True))
            trusted = min((plans[1], estimated), (plans[2], scales), key=lambda one: one[0][0])[1]
        yield from made(partial(self._removal, "removal", None, {}))
        yield from made(partial(self._removal, "removal and ranks", trusted, {}))
        _, name, plan = plans[-1]
        if name == "removal and ranks" and plan.units:
            measured = self._unit_scales(plan.units)
            yield from made(partial(self._removal, "removal and ranks, all measured", scales, measured))
        _, name, plan = min(plans, key=lambda one: one[0])
        model, missed = sequential(self.base, self.fits, plan.variant, self.calibration, self.in_step())
        yield self._candidate(f"sequential, {name}", model, plan.variant.ranks, missed, plan.units)

    def _within(
        self, cost: float, plan: Callable[[float], tuple[Candidate, _Plan] | None]
    ) -> tuple[Candidate, _Plan] | None:
        """What `plan` makes of the room for layers at that cost: of less room while it was timed to be too slow.

        Together, layers cost something else than what each was timed at.
        """
        room, found = cost - self.budget.fixed, None
        for _ in range(_REPLANNED):
            made = plan(room)
            if made is None:
                break
            found = made
            if self.budget.kind != "latency":
                break
            measured = self.budget.measure(found[0].model)
            if measured <= cost * SLOWER:
                break
            room *= cost / measured
        return found

    def _cut(
        self, name: str, scales: Mapping[str, float], weighted: bool, room: float
    ) -> tuple[Candidate, _Plan]:
        """A network with ranks cut, in the metric or without; the cheapest where the room is less than that takes."""
        ranks = self._ranks(max(room, self.budget.cheapest), scales)
        model = one_shot(self.base, self.fits, ranks, weighted)
        return self._candidate(name, model, ranks), _Plan(Variant(ranks, weighted))

    def _removal(
        self,
        name: str,
        scales: Mapping[str, float] | None,
        of_units: Mapping[str, float],
        room: float,
    ) -> tuple[Candidate, _Plan] | None:
        """A network with units removed and, given `scales`, ranks; None where nothing can be, or not so much."""
        chosen = planned(self.narrowing, self.budget, room, self.multiple, scales, of_units)
        if chosen is None or not chosen[1]:
            return None
        ranks, units = chosen
        fits = self.narrowing.narrowed(units)
        model = one_shot(self.base, fits, ranks, True)
        return self._candidate(name, model, ranks, units=units), _Plan(Variant(ranks, True, fits), units)

    def kl(self, candidate: Candidate) -> float:
        """Its KL from the original on data held back, measured once."""
        if candidate.model not in self._kls:
            self._kls[candidate.model] = self.calibration.kl(candidate.model)
        return self._kls[candidate.model]

    def in_step(self) -> list[Batch]:
        """The batches whose activations fit into the memory, at one depth of the original and of its twin.

        Where not all do, they are evenly spaced over the data.
        """
        batches, held = self.calibration.fit, [2 * _HELD * held for held in self.calibration.held]
        count = len(batches)
        while True:
            chosen = [i * len(batches) // count for i in range(count)]
            size = sum(held[i] for i in chosen)
            if count == 1 or size <= self.memory:
                return [batches[i] for i in chosen]
            count = max(1, min(count - 1, int(count * self.memory / size)))

    def _ranks(self, room: float, scales: Mapping[str, float]) -> Ranks:
        choices = allocate(self.budget.choices(self.fits, scales), room)
        return {layer.path: choice.rank for layer, choice in zip(self.layers, choices, strict=True)}

    def _estimated(self) -> dict[str, float]:
        """1 for each layer; without gradients, what makes its whole weight 1: no more is known until it is measured."""
        scales = {}
        for layer in self.layers:
            whole = 0.0 if self.survey.differentiable else self.fits.factors(layer, True).tail(0)
            scales[layer.path] = 2 / whole if whole > 0 else 1.0
        return scales

    def _scales(self, ranks: Ranks) -> dict[str, float]:
        """Each layer's measured harm over the estimate, cut alone: at its rank, or at half of the possible ones."""
        probed = [layer for layer in self.layers if len(self.budget.prices[layer.path]) > 1]
        scales = {layer.path: 1.0 for layer in self.layers}
        alone: dict[str, int | None] = dict.fromkeys(scales)
        for layer in probed:
            possible = [rank for rank in self.budget.prices[layer.path] if rank is not None]
            rank = ranks[layer.path] or possible[len(possible) // 2]
            model = one_shot(self.base, self.fits, {**alone, layer.path: rank}, True)
            estimate = self.fits.factors(layer, True).tail(rank) / 2
            scales[layer.path] = self._ratio(model, estimate, len(probed))
        return scales

    def _unit_scales(self, units: Mapping[str, int]) -> dict[str, float]:
        """Each feed's measured harm over the estimate, where it alone keeps no more than so many units.

        Feeds whose harm is a small part of all are left out: what it grows to is not to be told from it.
        """
        feeds = [feed for feed in self.narrowing.feeds if feed.path in units]
        estimates = {feed.path: self.narrowing.order(feed).error(units[feed.path]) / 2 for feed in feeds}
        known = {path: harm for path, harm in estimates.items() if harm > _LITTLE * fmean(estimates.values())}
        whole: dict[str, int | None] = {layer.path: None for layer in self.layers}
        scales = {}
        for path, estimate in known.items():
            model = one_shot(self.base, self.narrowing.narrowed({path: units[path]}), whole, True)
            scales[path] = self._ratio(model, estimate, len(known))
        return scales

    def _ratio(self, model: nn.Module, estimate: float, probes: int) -> float:
        """The network's harm over the estimate of it, as seen on the samples that one of so many probes may take."""
        samples = max(1, int(_PROBES * self.calibration.samples / probes))
        harm = min(self.calibration.kl(model, samples), _RUINED)
        return harm / estimate if estimate > 0 else 1.0

    def _candidate(
        self,
        name: str,
        model: nn.Module,
        ranks: Ranks,
        missed: frozenset[str] = frozenset(),
        units: Mapping[str, int] | None = None,
    ) -> Candidate:
        changes = {}
        of = {path: feed for feed in self.narrowing.feeds for path in feed.sources}
        for layer in self.layers:
            rank, feed = ranks[layer.path], of.get(layer.path)
            count = None if units is None or feed is None else units.get(feed.path)
            notes = ["fitted by itself"] if layer.path in missed else []
            harm = discarded = 0.0
            kept: int | None = None
            if rank is not None:
                factors = self.fits.factors(layer, True)
                harm, discarded = factors.tail(rank) / 2, factors.share(rank)
            if count is not None and feed is not None:
                order = self.narrowing.order(feed)
                block = feed.sources[layer.path].shape[1]
                notes.append(
                    f"{count} of {feed.units} {'units' if block == 1 else f'blocks of {block} units'} kept"
                )
                kept = count * block
                discarded = 1 - (1 - discarded) * (1 - order.share(count))
                if layer.path == feed.path:
                    harm += order.error(count) / 2
                else:
                    notes.append(f"with {feed.path}")
            if rank is None and count is None:
                note, refitted = self._why_dense(layer, units)
                changes[layer.path] = LayerChange(note=note, untouched=not refitted)
                continue
            if not self.survey.differentiable:
                harm = float("nan")
            changes[layer.path] = LayerChange(rank, discarded, harm, "; ".join(notes), kept)
        return Candidate(name, model, changes)

    def _why_dense(self, layer: WeightLayer, units: Mapping[str, int] | None) -> tuple[str, bool]:
        """Why a layer's matrix stays one with all its units, and whether it was refitted."""
        feeds = [feed.path for feed in self.narrowing.feeds if layer.path in feed.readers]
        gone = [path for path in feeds if units is not None and path in units]
        if gone:
            return f"reads what is left of {', '.join(gone)}", True
        prices = self.budget.prices[layer.path]
        if self.budget.kind == "latency" and all(price >= prices[None] for price in prices.values()):
            return "left dense: any two factors were timed to be slower", False
        return "left dense", False


def prepared(
    base: nn.Module,
    calibration: Calibration,
    *,
    layers: Layers,
    kind: str,
    multiple: int,
    memory: int,
    generator: torch.Generator,
    group: Processes | None = None,
) -> Work | None:
    """The network's copy with BatchNorm folded, surveyed, its layers priced.

    The survey is that of all processes of `group`; process 0 alone goes on, and the others have None.

    Raises:
        ValueError: no layer can be compressed; the reasons are listed.
    """
    first = calibration.fit[0]
    run = partial(_rows, calibration, first)
    whole = measures(calibration)[kind](base)
    folded = fold_batchnorm(base, run)
    found, left = weight_layers(base)
    chosen = select(base, layers).chosen
    for layer in found:
        if not any(path in chosen for path in layer.paths):
            left[layer.path] = "not among `layers`"
    found = [layer for layer in found if layer.path not in left]
    fed = feeds(base, found, calibration.rows, first)
    seen = survey(base, found, calibration, generator, {path for feed in fed for path in feed.readers})
    if group is not None:
        device = next(base.parameters()).device
        summed = group.add_up(seen, Survey.from_header)
        if group.rank:
            return None
        seen = Survey.from_header(
            summed.header(), {name: tensor.to(device) for name, tensor in summed.tensors().items()}
        )
    for layer in found:
        record = seen.layers[layer.path]
        if record.scatter is None or record.scatter.n == 0:
            left[layer.path] = "it was never called"
        elif seen.differentiable and (record.fisher is None or not bool(record.fisher.any())):
            left[layer.path] = "the predictions do not depend on its output"
    found = [layer for layer in found if layer.path not in left]
    left |= read_directly(base, [layer.paths for layer in found], run)
    found = [layer for layer in found if layer.path not in left]
    if not found:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(left.items())[:8])
        raise ValueError(
            "Argument `model` must have a linear layer or a convolution that can be compressed, but has none"
            f"{f' ({reasons})' if reasons else ''}."
        )
    prices = budget(kind, whole, base, found, seen, calibration, multiple)
    fits = Fits(found, seen)
    narrowing = Narrowing(fits, usable(fed, found, seen.order, WIDEST_INPUT))
    return Work(base, found, left, folded, calibration, seen, fits, prices, narrowing, multiple, memory)


def _rows(calibration: Calibration, batch: Batch, model: nn.Module) -> torch.Tensor:
    return calibration.rows(model, batch)
