"""A network with units removed: smaller layers, and what the survey knows of them cut to what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd, lcm
from statistics import fmean

from ketwork.networks.compression.budgets import Budget
from ketwork.networks.compression.descent import Descent, Item
from ketwork.networks.compression.elimination import Order, Reader, ordered, repaired
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.units import Feed, staying_of


@dataclass
class Narrowing:
    """The feeds of a network, each one's units in order of their worth, and the fits of what is left of its layers."""

    fits: Fits
    feeds: Sequence[Feed]
    _orders: dict[str, Order] = field(default_factory=dict)

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

    def narrowed(self, counts: Mapping[str, int]) -> Fits:
        """The fits of the network in which feeds keep so many of their units, the best; others keep all of theirs.

        Layers that read fewer units are repaired by least squares.
        """
        units = {
            feed.path: self.order(feed).kept(counts[feed.path]) for feed in self.feeds if feed.path in counts
        }
        rows_of, columns_of = staying_of(self.feeds, units, self.layers)
        survey = replace(self.fits.survey, layers=dict(self.fits.survey.layers))
        layers = []
        for layer in self.fits.layers:
            rows, columns = rows_of.get(layer.path), columns_of.get(layer.path)
            if rows is None and columns is None:
                layers.append(layer)
                continue
            seen = survey.layers[layer.path]
            scatter, fisher = seen.scatter, seen.fisher
            assert scatter is not None
            small = layer
            if columns is not None:
                small = layer.with_weight(*repaired(layer.weight(), layer.bias(), scatter, columns))
                scatter = scatter.of_both(columns)
            if rows is not None:
                small = small.narrowed(rows, None)
                if seen.side == "outputs":
                    scatter = scatter.of_both(rows)
                if fisher is not None:
                    fisher = fisher[rows] if fisher.ndim == 1 else fisher[rows][:, rows]
            survey.layers[layer.path] = replace(seen, scatter=scatter, fisher=fisher)
            layers.append(small)
        paths = {*rows_of, *columns_of}
        return Fits(layers, survey, {path: rows_of.get(path) for path in paths})


def planned(
    narrowing: Narrowing,
    budget: Budget,
    room: float,
    multiple: int,
    scales: Mapping[str, float] | None,
    of_units: Mapping[str, float],
) -> tuple[dict[str, int | None], dict[str, int]] | None:
    """The ranks, and the units of feeds that keep fewer than all, with which the layers cost no more than `room`.

    `scales` multiplies the estimated harm done to each layer's output; None leaves all matrices whole. `of_units`
    multiplies that of removing a feed's units, in place of the mean scale of the layers that read them. The result is
    None where the room is too small.
    """
    layers = narrowing.layers
    items = []
    of: dict[str, tuple[str, int, int]] = {}  # the feed that each source is of, its units, rows of each
    read: dict[str, list[tuple[str, int, int]]] = {
        path: [] for path in layers
    }  # feed, units, columns of each
    for feed in narrowing.feeds:
        order = narrowing.order(feed)
        errors: dict[int | None, float] = {None: 0.0}
        scale = of_units.get(feed.path)
        if scale is None:
            scale = 1.0 if scales is None else fmean(scales[path] for path in feed.readers)
        step = lcm(*(multiple // gcd(multiple, rows.shape[1]) for rows in feed.sources.values()))
        errors |= {n: scale * order.error(n) / 2 for n in range(step, feed.units, step)}
        of |= {path: (feed.path, *rows.shape) for path, rows in feed.sources.items()}
        for path, columns in feed.readers.items():
            read[path].append((feed.path, feed.units, columns.shape[1]))
        touches = tuple(dict.fromkeys([*feed.sources, *feed.readers]))
        items.append(Item(("units", feed.path), errors, touches))
    for path, scale in (scales or {}).items():
        factors = narrowing.fits.factors(layers[path], True)
        cheaper = [r for r, price in budget.prices[path].items() if r and price < budget.prices[path][None]]
        errors = {None: 0.0} | {rank: scale * factors.tail(rank) / 2 for rank in cheaper}
        items.append(Item(("rank", path), errors, (path,)))

    def sizes(path: str, chosen: Mapping[tuple[str, str], int | None]) -> tuple[int, int]:
        m, k = layers[path].m, layers[path].k
        if path in of:
            feed, units, rows = of[path]
            m -= rows * (units - (chosen["units", feed] or units))
        for feed, units, columns in read[path]:
            k -= columns * (units - (chosen["units", feed] or units))
        return m, k

    def price(path: str, chosen: Mapping[tuple[str, str], int | None]) -> float:
        return budget.price(layers[path], chosen.get(("rank", path)), *sizes(path, chosen))

    chosen = Descent(items, list(layers), price).to(room)
    if chosen is None:
        return None
    ranks: dict[str, int | None] = {}
    for path, layer in layers.items():
        rank, (m, k) = chosen.get(("rank", path)), sizes(path, chosen)
        # Where what is left costs no more whole than in two, it stays whole.
        split = rank is not None and price(path, chosen) < budget.price(layer, None, m, k)
        ranks[path] = rank if split else None
    units = {feed.path: chosen["units", feed.path] for feed in narrowing.feeds}
    return ranks, {path: count for path, count in units.items() if count is not None}


def usable(
    feeds: Sequence[Feed], layers: Sequence[WeightLayer], order: Sequence[str], widest: int
) -> list[Feed]:
    """The feeds all of whose layers are among these, run once, and read no more than `widest` features."""
    known = {layer.path: layer for layer in layers}
    good = known.keys() & set(order)
    return [
        feed
        for feed in feeds
        if {*feed.readers, *feed.sources} <= good and all(known[path].k <= widest for path in feed.readers)
    ]
