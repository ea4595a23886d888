"""A network prepared to be made smaller, and the candidates that come of it at a given cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ketwork.networks.batches import Batch
from ketwork.networks.compression.allocation import allocate
from ketwork.networks.compression.budgets import Budget, budget, measures
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.candidates import Candidate, LayerChange
from ketwork.networks.compression.feeding import feeds
from ketwork.networks.compression.fisher import Survey, survey
from ketwork.networks.compression.fits import WIDEST_INPUT, Fits, Ranks, Variant, one_shot, sequential
from ketwork.networks.compression.layers import WeightLayer, weight_layers
from ketwork.networks.compression.narrowing import Narrowing, planned, usable
from ketwork.networks.compression.surgery import fold_batchnorm, read_directly
from ketwork.networks.processes import Processes
from ketwork.networks.select import Layers, select

_HELD = 4  # times a layer's input and output: what one forward pass is taken to hold at one depth
_RUINED = 1e6  # nats: more than any prediction can be worth
SLOWER = 1.02  # a latency above the budget by less is noise
_REPLANNED = 3  # times that a network is planned anew because it was timed to be too slow
_PROBES = 0.5  # passes spent on measuring what each layer's truncation really costs


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
    _harms: WeakKeyDictionary[nn.Module, float] = field(default_factory=WeakKeyDictionary)

    def quick(self, cost: float) -> Candidate:
        """The network at that cost, each layer fitted by itself, with the metric."""
        ranks = self._ranks(cost)
        return self._candidate("two-sided", one_shot(self.base, self.fits, ranks, True), ranks)

    def candidates(self, cost: float) -> Iterator[Candidate]:
        """All candidates at that cost, one at a time: each layer by itself, then the best of those fitted in sequence."""
        plans: list[tuple[Candidate, Variant, Mapping[str, int] | None]] = []
        ranks = self._ranks(cost)
        scales = self._scales(ranks)
        measured = self._ranks(cost, scales)
        for name, of, weighted in (
            ("one-sided", ranks, False),
            ("two-sided", ranks, True),
            ("two-sided, measured ranks", measured, True),
        ):
            if of is not measured or measured != ranks:
                model = one_shot(self.base, self.fits, of, weighted)
                plans.append((self._candidate(name, model, of), Variant(of, weighted), None))
                yield plans[-1][0]
        alone = min(plans[1:], key=self._planned_harm)[1].ranks
        for name, trusted in (
            ("removal", None),
            ("removal and ranks", scales if alone is measured else dict.fromkeys(scales, 1.0)),
        ):
            found = self._removal(name, cost, trusted)
            if found is not None:
                plans.append(found)
                yield found[0]
        best, variant, units = min(plans, key=self._planned_harm)
        [(model, missed)] = sequential(self.base, self.fits, [variant], self.calibration, self.in_step(1))
        yield self._candidate(f"sequential, {best.name}", model, variant.ranks, missed, units)

    def _planned_harm(self, plan: tuple[Candidate, Variant, Mapping[str, int] | None]) -> float:
        return self.harm(plan[0])

    def _removal(
        self, name: str, cost: float, scales: dict[str, float] | None
    ) -> tuple[Candidate, Variant, dict[str, int]] | None:
        """A network with units removed and, given `scales`, ranks; how it is fitted in sequence; units that stay."""
        room, found = cost - self.budget.fixed, None
        for _ in range(_REPLANNED):
            plan = planned(self.narrowing, self.budget, room, self.multiple, scales)
            if plan is None or not plan[1]:
                break
            ranks, units = plan
            fits = self.narrowing.narrowed(units)
            model = one_shot(self.base, fits, ranks, True)
            found = self._candidate(name, model, ranks, units=units), Variant(ranks, True, fits), units
            if self.budget.kind != "latency":
                break
            measured = self.budget.measure(model)
            if measured <= cost * SLOWER:
                break
            room *= cost / measured  # together, layers cost something else than what each was timed at
        return found

    def harm(self, candidate: Candidate) -> float:
        """Its KL from the original on data held back, measured once."""
        if candidate.model not in self._harms:
            self._harms[candidate.model] = self.calibration.harm(candidate.model)
        return self._harms[candidate.model]

    def in_step(self, variants: int) -> list[Batch]:
        """The batches whose activations fit into the memory, at one depth of the original and so many variants.

        Where not all do, they are evenly spaced over the data.
        """
        batches = self.calibration.fit
        held = max(seen.held for seen in self.survey.layers.values()) * _HELD * (1 + variants)
        share = min(1.0, self.memory / (held * sum(batch.size for batch in batches)))
        count = max(1, int(share * len(batches)))
        return [batches[i * len(batches) // count] for i in range(count)]

    def _ranks(self, cost: float, scales: dict[str, float] | None = None) -> Ranks:
        room = cost - self.budget.fixed
        if scales is None and not self.survey.differentiable:
            scales = {layer.path: self._relative(layer) for layer in self.layers}
        choices = allocate(self.budget.choices(self.fits, scales), room)
        return {layer.path: choice.rank for layer, choice in zip(self.layers, choices, strict=True)}

    def _relative(self, layer: WeightLayer) -> float:
        """What makes a layer's whole weight 1: without gradients nothing else is known before it is measured."""
        whole = self.fits.factors(layer, True).tail(0)
        return 2 / whole if whole > 0 else 1.0

    def _scales(self, ranks: Ranks) -> dict[str, float]:
        """Each layer's measured harm over the estimate, cut alone: at its rank, or at half of the possible ones."""
        probed = [layer for layer in self.layers if len(self.budget.prices[layer.path]) > 1]
        samples = max(1, int(_PROBES * self.calibration.samples / max(len(probed), 1)))
        scales = {layer.path: 1.0 for layer in self.layers}
        alone: dict[str, int | None] = dict.fromkeys(scales)
        for layer in probed:
            possible = [rank for rank in self.budget.prices[layer.path] if rank is not None]
            rank = ranks[layer.path] or possible[len(possible) // 2]
            estimate = self.fits.factors(layer, True).tail(rank) / 2
            model = one_shot(self.base, self.fits, {**alone, layer.path: rank}, True)
            harm = min(self.calibration.harm(model, samples), _RUINED)
            scales[layer.path] = harm / estimate if estimate > 0 else 1.0
        return scales

    def _candidate(
        self,
        name: str,
        model: nn.Module,
        ranks: Ranks,
        missed: frozenset[str] = frozenset(),
        units: Mapping[str, int] | None = None,
    ) -> Candidate:
        changes = {}
        of = {source.path: feed for feed in self.narrowing.feeds for source in feed.sources}
        for layer in self.layers:
            rank, feed = ranks[layer.path], of.get(layer.path)
            count = None if units is None or feed is None else units.get(feed.path)
            notes = ["fitted by itself"] if layer.path in missed else []
            harm = discarded = 0.0
            if rank is not None:
                factors = self.fits.factors(layer, True)
                harm, discarded = factors.tail(rank) / 2, factors.share(rank)
            if count is not None and feed is not None:
                order = self.narrowing.order(feed)
                notes.append(f"{count} of {feed.units} units kept")
                discarded = 1 - (1 - discarded) * (1 - order.share(count))
                if layer is feed.sources[0]:
                    harm += order.error(count) / 2
                else:
                    notes.append(f"with {feed.path}")
            if rank is None and count is None:
                changes[layer.path] = LayerChange(note=self._why_dense(layer, units))
                continue
            if not self.survey.differentiable:
                harm = float("nan")
            changes[layer.path] = LayerChange(rank, discarded, harm, "; ".join(notes), count)
        return Candidate(name, model, changes)

    def _why_dense(self, layer: WeightLayer, units: Mapping[str, int] | None) -> str:
        feeds = [feed.path for feed in self.narrowing.feeds if layer.path in feed.readers]
        gone = [path for path in feeds if units is not None and path in units]
        if gone:
            return f"reads what is left of {', '.join(gone)}"
        prices = self.budget.prices[layer.path]
        if self.budget.kind == "latency" and all(price >= prices[None] for price in prices.values()):
            return "left dense: any two factors were timed to be slower"
        return "left dense"


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
