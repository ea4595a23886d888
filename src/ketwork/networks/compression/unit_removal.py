"""A network with units removed: smaller layers, and what the survey knows of them cut to what is left."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import gcd, lcm, prod
from statistics import fmean

import torch
from torch import nn

from ketwork.networks.compression.budgets import Budget
from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.descent import Descent, Item
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.forms import DENSE, Form
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.recurrent import Cell
from ketwork.networks.compression.shared_factor import Shared, SharedReader, shared
from ketwork.networks.compression.unit_discovery import smaller_carriers
from ketwork.networks.compression.unit_feeds import Feed, staying_of
from ketwork.networks.compression.unit_order import Order, Reader, ordered, repaired

_COUNTS = 128  # numbers of units of a feed that are offered


@dataclass
class Narrowing:
    """The feeds of a network, each one's units in order of their worth, and the fits of what is left of its layers.

    `states` are the LSTM cells whose whole state a feed is, by the feed's path.
    """

    base: nn.Module
    fits: Fits
    feeds: Sequence[Feed]
    states: Mapping[str, str] = field(default_factory=dict)
    _orders: dict[str, Order] = field(default_factory=dict)
    _shared: dict[str, Shared] = field(default_factory=dict)

    @property
    def layers(self) -> dict[str, WeightLayer]:
        """The layers by path, whole."""
        return {layer.path: layer for layer in self.fits.layers}

    def order(self, feed: Feed) -> Order:
        """The feed's units, by what the layers that read them lose in loss units."""
        if feed.path not in self._orders:
            readers = []
            for path, columns in feed.readers.items():
                layer, scatter = self.layers[path], self.fits.survey.layers[path].scatter
                assert scatter is not None
                columns = columns.to(scatter.total.device)
                readers.append(Reader(layer.weight(), scatter, self.fits.metric(layer, True), columns))
            self._orders[feed.path] = ordered(readers)
        return self._orders[feed.path]

    def state(self, feed: Feed) -> Shared:
        """The factors of the feed's state for all layers that read it."""
        if feed.path not in self._shared:
            self._shared[feed.path] = _shared_of(feed, self.layers, self.fits)
        return self._shared[feed.path]

    def narrowed(self, counts: Mapping[str, int], ranks: Mapping[str, int] | None = None) -> Fits:
        """The fits of the network in which feeds keep so many of their units, the best; others keep all of theirs.

        Layers that read fewer units are repaired by least squares. The states of the feeds in `ranks` are then
        truncated.
        """
        units = {
            feed.path: self.order(feed).kept(counts[feed.path]) for feed in self.feeds if feed.path in counts
        }
        stay = staying_of(self.feeds, units, self.layers)
        survey = replace(self.fits.survey, layers=dict(self.fits.survey.layers))
        layers: dict[str, WeightLayer] = {}
        for layer in self.fits.layers:
            rows, columns = stay.rows.get(layer.path), stay.columns.get(layer.path)
            layers[layer.path] = layer
            if rows is None and columns is None:
                continue
            seen = survey.layers[layer.path]
            scatter, fisher = seen.scatter, seen.fisher
            assert scatter is not None
            small = layer
            if columns is not None:
                small = layer.with_weight(*repaired(layer.weight(), layer.bias(), scatter, columns))
                scatter = self._kept(scatter.of_both(columns))
            if rows is not None:
                small = small.narrowed(rows, None)
                if seen.side == "outputs":
                    scatter = self._kept(scatter.of_both(rows))
                if fisher is not None:
                    fisher = fisher[rows] if fisher.ndim == 1 else fisher[rows][:, rows]
                    fisher = self.fits.scratch.kept(fisher)
            survey.layers[layer.path] = replace(seen, scatter=scatter, fisher=fisher)
            layers[layer.path] = small
        rows_of = {path: stay.rows.get(path) for path in {*stay.rows, *stay.columns}}
        carriers = smaller_carriers(self.base, stay)
        for feed in self.feeds:
            if feed.path in (ranks or {}):
                fits = Fits(list(layers.values()), survey, multiple_of=self.fits.multiple_of)
                result = _shared_of(feed, layers, fits)
                first, parts = result.cut(min(ranks[feed.path], len(result.first)))  # type: ignore[index]
                for path, part in zip(feed.readers, parts, strict=True):
                    seen = survey.layers[path]
                    assert seen.scatter is not None
                    layers[path] = layers[path].with_weight(*part)
                    survey.layers[path] = replace(seen, scatter=seen.scatter.through(first))
                    rows_of.setdefault(path, None)
                like = layers[feed.path].module.weight
                project = nn.Linear(
                    first.shape[1], len(first), bias=False, dtype=like.dtype, device=like.device
                )
                with torch.no_grad():
                    project.weight.copy_(first)
                carriers[f"{self.states[feed.path]}.project"] = project.requires_grad_(False).eval()
        return self.fits.smaller(layers, survey, rows_of, carriers)

    def _kept(self, scatter: Scatter) -> Scatter:
        return replace(scatter, total=self.fits.scratch.kept(scatter.total))


def _shared_of(feed: Feed, layers: Mapping[str, WeightLayer], fits: Fits) -> Shared:
    readers = []
    for path in feed.readers:
        scatter = fits.survey.layers[path].scatter
        assert scatter is not None
        layer = layers[path]
        readers.append(SharedReader(layer.weight(), layer.bias(), scatter, fits.metric(layer, True)))
    return shared(readers)


def states_of(base: nn.Module, feeds: Sequence[Feed], layers: Mapping[str, WeightLayer]) -> dict[str, str]:
    """The LSTM cells whose whole state is what the layers read that read a feed, by the feed's path."""
    result = {}
    for feed in feeds:
        cells = [path.rpartition(".")[0] for path in feed.sources if layers[path].repeated]
        alone = all(
            not layers[path].convolution and torch.equal(columns[:, 0], torch.arange(layers[path].k))
            for path, columns in feed.readers.items()
        )
        if len(cells) == 1 and alone and f"{cells[0]}.recurrent" in feed.readers:
            cell = base.get_submodule(cells[0])
            if isinstance(cell, Cell) and cell.kind == "LSTM":
                result[feed.path] = cells[0]
    return result


@dataclass(frozen=True)
class _Left:
    """How many outputs and channels of each layer are left at a choice.

    `of` has the feed that a source is of, its units and the rows of each; `read` the feeds that a layer reads, their
    units and the channels of each.
    """

    layers: Mapping[str, WeightLayer]
    of: Mapping[str, tuple[str, int, int]]
    read: Mapping[str, Sequence[tuple[str, int, int]]]

    def sizes(self, path: str, chosen: Mapping[tuple[str, str], Hashable]) -> tuple[int, int]:
        """Outputs and channels of a layer."""
        m, c = self.layers[path].m, self.layers[path].channels
        if path in self.of:
            feed, units, rows = self.of[path]
            m -= rows * (units - _count(chosen["units", feed], units))
        for feed, units, channels in self.read[path]:
            left = _count(chosen["units", feed], units)
            c -= channels * (units - min(left, _count(chosen.get(("state", feed)), left)))
        return m, c

    def projection(self, path: str, chosen: Mapping[tuple[str, str], Hashable]) -> int:
        """The weights of the projection of a recurrent matrix's state."""
        feed, units, _ = self.of.get(path, ("", 0, 0))
        rank = chosen.get(("state", feed))
        if not self.layers[path].repeated or not isinstance(rank, int):
            return 0
        left = _count(chosen["units", feed], units)
        return min(rank, left) * left


def descent(
    narrowing: Narrowing,
    budget: Budget,
    multiple_of: int,
    scales: Mapping[str, float] | None,
    of_units: Mapping[str, float],
) -> tuple[Descent, _Left]:
    """The way down from the whole network, and what is left of layers on it.

    `scales` multiplies the estimated KL of each layer's forms; None leaves all matrices whole but those of constant
    output. `of_units` multiplies that of removing a feed's units, in place of the mean scale of the layers that read
    them.
    """
    layers = narrowing.layers
    items = []
    of: dict[str, tuple[str, int, int]] = {}  # the feed that each source is of, its units, rows of each
    read: dict[str, list[tuple[str, int, int]]] = {
        path: [] for path in layers
    }  # feed, units, channels of each
    for feed in narrowing.feeds:
        order = narrowing.order(feed)
        errors: dict[Hashable, float] = {None: 0.0}
        scale = of_units.get(feed.path)
        if scale is None:
            scale = 1.0 if scales is None else fmean(scales[path] for path in feed.readers)
        step = lcm(*(multiple_of // gcd(multiple_of, rows.shape[1]) for rows in feed.sources.values()))
        counts = list(range(step, feed.units, step))
        thin = max(1, -(-len(counts) // _COUNTS))
        errors |= {n: scale * order.error(n) / 2 for n in counts[::thin]}
        of |= {path: (feed.path, *rows.shape) for path, rows in feed.sources.items()}
        for path, columns in feed.readers.items():
            read[path].append((feed.path, feed.units, columns.shape[1] // prod(layers[path].kernel)))
        touches = tuple(dict.fromkeys([*feed.sources, *feed.readers]))
        items.append(Item(("units", feed.path), errors, touches))
    for feed in narrowing.feeds:
        if feed.path in narrowing.states and scales is not None:
            state, scale = narrowing.state(feed), fmean(scales[path] for path in feed.readers)
            errors = {None: 0.0}
            errors |= {
                r: scale * state.error(r) / 2 for r in range(multiple_of, len(state.first), multiple_of)
            }
            touches = tuple(dict.fromkeys([*feed.readers, *feed.sources]))
            items.append(Item(("state", feed.path), errors, touches))
    if scales is None:
        scales = {
            path: 1.0 for path, layer in layers.items() if narrowing.fits.reductions(layer, True).total == 0
        }
    for path, scale in scales.items():
        errors = {
            choice.form: choice.error
            for choice in narrowing.fits.choices(layers[path], budget, scale, few=True)
        }
        items.append(Item(("form", path), errors, (path,)))

    left = _Left(layers, of, read)

    @cache
    def cheapest(path: str, form: Form, m: int, c: int) -> float:
        return _cheaper(budget, path, form, m, c)[1]

    def price(path: str, chosen: Mapping[tuple[str, str], Hashable]) -> float:
        form = chosen.get(("form", path), DENSE)
        assert isinstance(form, Form)
        own = cheapest(path, form, *left.sizes(path, chosen))
        projection = left.projection(path, chosen)
        return own + (budget.extra(path, projection) if projection else 0.0)

    return Descent(items, list(layers), price), left


def planned(
    narrowing: Narrowing,
    budget: Budget,
    limit: float,
    multiple_of: int,
    scales: Mapping[str, float] | None,
    of_units: Mapping[str, float],
) -> tuple[dict[str, Form], dict[str, int], dict[str, int]] | None:
    """The forms, the units of feeds that keep fewer than all, and the ranks of states, that cost no more than `limit`.

    As in `descent`. The result is None where the limit is too small.
    """
    way, left = descent(narrowing, budget, multiple_of, scales, of_units)
    chosen = way.to(limit)
    if chosen is None:
        return None
    forms: dict[str, Form] = {}
    for path in narrowing.layers:
        form = chosen.get(("form", path), DENSE)
        assert isinstance(form, Form)
        forms[path] = _cheaper(budget, path, form, *left.sizes(path, chosen))[0]
    result: dict[str, dict[str, int]] = {"units": {}, "state": {}}
    for feed in narrowing.feeds:
        for kind, values in result.items():
            count = chosen.get((kind, feed.path))
            if isinstance(count, int):
                values[feed.path] = count
    return forms, result["units"], result["state"]


def lowest(narrowing: Narrowing, budget: Budget, multiple_of: int) -> float:
    """The least that all layers can cost, by forms and with units removed."""
    scales = dict.fromkeys(narrowing.layers, 1.0)
    way, _ = descent(narrowing, budget, multiple_of, scales, {})
    way.to(0.0)
    return way.total


def _count(value: Hashable, units: int) -> int:
    return value if isinstance(value, int) else units


def _cheaper(budget: Budget, path: str, form: Form, m: int, c: int) -> tuple[Form, float]:
    """The form at those sizes, or the dense one with as many bits where what is left costs no more whole."""
    price = budget.price(path, form, m, c)
    if form.dense:
        return form, price
    complete = DENSE.with_bits(form.bits)
    dense = budget.price(path, complete, m, c)
    return (complete, dense) if dense <= price else (form, price)


def usable(
    feeds: Sequence[Feed], layers: Sequence[WeightLayer], order: Sequence[str], widest: int
) -> list[Feed]:
    """The feeds all of whose layers are among these, run once, and read no more than `widest` features."""
    known = {layer.path: layer for layer in layers}
    good = known.keys() & {*order, *(path for path, layer in known.items() if layer.repeated)}
    return [
        feed
        for feed in feeds
        if {*feed.readers, *feed.sources} <= good
        and all(known[path].known and known[path].k <= widest for path in feed.readers)
    ]
