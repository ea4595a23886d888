"""Layers that say nothing of the data go before anything else is weighed: down to one unit, or to a constant of rank 1.

To put a layer's mean output in the place of its output y costs ½ tr(G C) nats, to lowest order, with C the covariance
of y. That is 0 where no gradient comes to it, since whatever reads it is saturated or multiplied by 0, and where y
never changes: the layer is dead on the data. Where its units can be removed, one stays. Where they cannot, its matrix
becomes 0 and its bias the mean output, of which a form of rank 1 is left. A gradient of 0 alone proves nothing (that of
a sign is 0 too), so each is tried: what the network puts out for the samples held back must stay what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from ketwork.networks.activations import activations
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.candidates import DEAD
from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.forms import DENSE, Form, Sizes
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.surgery import replace as put
from ketwork.networks.compression.surgery import sharing
from ketwork.networks.compression.survey import Survey, Surveyed
from ketwork.networks.compression.unit_discovery import REFUSALS
from ketwork.networks.compression.unit_feeds import Feed, Staying, staying_of
from ketwork.networks.compression.unit_removal import Narrowing

_NOTHING = 1e-9  # nats a prediction
_CONSTANT = 1e-12  # of the mean square of an output: the variance of a constant, where there are no gradients
_SAME = 1e-5  # of the largest number that the network puts out: what rounding changes
OTHERS = "only outputs besides the predictions depend on it"

T = TypeVar("T")


@dataclass(frozen=True)
class Trimmed:
    """A network without what was dead in it, its layers, what was seen of these, and its feeds.

    By path: `notes` say what became of the dead and of those that read them, `units` how many units the dead keep,
    `shapes` are the sizes that layers had, and `left` says why some that get no gradient stay unchanged.
    """

    base: nn.Module
    layers: list[WeightLayer]
    survey: Survey
    feeds: list[Feed]
    notes: dict[str, str] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def trimmed(network: Trimmed, calibration: Calibration) -> Trimmed:
    """The network without what is dead in it; as it is where nothing is.

    Cost: nothing where no layer seems to be dead; else two passes over the data held back, and some more for each
    layer that is not dead after all.
    """
    dead = [layer for layer in network.layers if is_silent(layer, network.survey)]
    before = _Before(network)

    def works(narrow: list[Feed], constant: list[WeightLayer]) -> bool:
        try:
            return not _differing(network.base, before.without(narrow, constant).base, calibration)
        except REFUSALS:
            return False

    paths = {layer.path for layer in dead}
    silent = [
        feed for feed in network.feeds if feed.sources.keys() <= paths or _never_changes(feed, network.survey)
    ]
    if not dead and not silent:
        return network
    narrow = _accepted(silent, [], lambda some: works(some, []))
    gone = {path for feed in narrow for path in feed.sources}
    rest = [layer for layer in dead if layer.path not in gone and not layer.repeated]
    constant = _accepted(rest, [], lambda some: works(narrow, some))
    left = {
        layer.path: OTHERS
        for layer in rest
        if layer not in constant
        and _differing(network.base, before.without([], [layer]).base, calibration) == {"others"}
    }
    return replace(before.without(narrow, constant), left=left)


def is_silent(layer: WeightLayer, survey: Survey) -> bool:
    """Whether nothing is lost, to lowest order, where the layer's mean output stands for its output."""
    seen, fisher = survey.layers[layer.path], survey.fisher(layer.path)
    assert seen.scatter is not None
    covariance, weight = seen.scatter.covariance(), layer.weight()
    if fisher is None and survey.differentiable:
        return True  # no gradient ever came
    if fisher is None:
        variance = _trace(covariance, weight, seen.side, torch.ones_like(weight[:, 0]))
        return variance <= _CONSTANT * (variance + float(_mean(layer, seen).square().sum()))
    return _trace(covariance, weight, seen.side, fisher) / 2 <= _NOTHING


def _never_changes(feed: Feed, survey: Survey) -> bool:
    """Whether all that comes of the feed's units to those that read them is constant."""
    for path, columns in feed.readers.items():
        scatter, own = survey.layers[path].scatter, columns.flatten()
        assert scatter is not None
        variances, means = scatter.covariance().diagonal()[own], scatter.left[own]
        if float(variances.sum()) > _CONSTANT * float((variances + means.square()).sum()):
            return False
    return True


def _trace(covariance: Tensor, weight: Tensor, side: str, fisher: Tensor) -> float:
    """tr(G C) of the output, by the covariance of that or of the input; G (m, m) or its diagonal (m,)."""
    if side == "outputs":
        return float((fisher * (covariance.diagonal() if fisher.ndim == 1 else covariance)).sum())
    weighted = fisher[:, None] * weight if fisher.ndim == 1 else fisher @ weight
    return float(((weighted @ covariance) * weight).sum())


def _mean(layer: WeightLayer, seen: Surveyed) -> Tensor:
    """The mean output."""
    assert seen.scatter is not None
    mean = seen.scatter.left
    return mean if seen.side == "outputs" else layer.bias() + layer.weight() @ mean


def _accepted(some: list[T], known: list[T], works: Callable[[list[T]], bool]) -> list[T]:
    """Those that work together with the known ones: all, or what is left of each half."""
    if not some or works([*known, *some]):
        return [*known, *some]
    if len(some) == 1:
        return known
    half = len(some) // 2
    return _accepted(some[half:], _accepted(some[:half], known, works), works)


def _differing(a: nn.Module, b: nn.Module, calibration: Calibration) -> set[str]:
    """What differs between two networks' outputs for the data held back: "predictions", "others", or nothing.

    Others that have different sizes are taken for what a network keeps of its inner values.
    """
    differing = set()
    with torch.no_grad():
        for batch in calibration.held_back:
            outputs = [calibration.output(model, batch) for model in (a, b)]
            rows = zip(*(calibration.predictions.rows(one, batch) for one in outputs), strict=True)
            if not all(_same(*pair) for pair in rows):
                return {"predictions"}
            parts = zip(*([leaf.tensor for leaf in activations(one)] for one in outputs), strict=True)
            if not all(_same(*pair) for pair in parts if pair[0].shape == pair[1].shape):
                differing = {"others"}
    return differing


def _same(a: Tensor, b: Tensor) -> bool:
    return a.numel() == 0 or bool(((a - b).abs() <= _SAME * a.abs().max()).all())


@dataclass
class _Before:
    """The network with what is dead in it, and the order of its feeds' units."""

    network: Trimmed
    narrowing: Narrowing = field(init=False)

    def __post_init__(self) -> None:
        one = self.network
        self.narrowing = Narrowing(one.base, Fits(one.layers, one.survey), one.feeds)

    def without(self, narrow: Sequence[Feed], constant: Sequence[WeightLayer]) -> Trimmed:
        """The network with one unit of each of these feeds, and with the mean outputs of these layers."""
        feeds, before = self.network.feeds, self.narrowing.layers
        units = {feed.path: self.narrowing.order(feed).kept(1) for feed in narrow}
        stay = staying_of(feeds, units, before)
        small = self.narrowing.narrowed(dict.fromkeys(units, 1))
        layers = {layer.path: layer for layer in small.layers}
        seen = dict(small.survey.layers)
        notes, kept = {}, {}
        for path in stay.columns:
            read = ", ".join(feed.path for feed in narrow if path in feed.readers)
            notes[path] = f"reads what is left of {read}"
            seen[path] = _reading_less(layers[path], seen[path])
        for feed in narrow:
            for path, rows in feed.sources.items():
                block = rows.shape[1]
                kind = "units" if block == 1 else f"blocks of {block} units"
                notes[path] = f"{DEAD}narrowed to 1 of {feed.units} {kind} at no cost"
                kept[path] = block
        for path in (layer.path for layer in constant):
            if layers[path].has_bias or _saves(layers[path]):
                layers[path], seen[path] = _as_constant(layers[path], seen[path])
                notes[path] = f"{DEAD}its output is a constant, kept in the bias at no cost"
        new: dict[str, nn.Module] = dict(small.carriers)
        for path in notes:
            new.update(dict.fromkeys(before[path].paths, layers[path].module))
        twin = sharing(self.network.base)
        put(twin, new)
        return Trimmed(
            twin,
            list(layers.values()),
            replace(self.network.survey, layers=seen),
            [_renumbered(feed, stay, before) for feed in feeds if feed.path not in units],
            notes,
            kept,
            {path: (before[path].m, before[path].k) for path in notes},
        )


def _saves(layer: WeightLayer) -> bool:
    """Whether some form of rank 1 has fewer parameters than the layer."""
    sizes = Sizes(layer.m, layer.channels, layer.kernel)
    ranks = [sizes.parameters(Form(name, 1), bias=True) for name in layer.splits]
    return min(ranks, default=layer.parameters) < sizes.parameters(DENSE, layer.has_bias)


def _as_constant(layer: WeightLayer, seen: Surveyed) -> tuple[WeightLayer, Surveyed]:
    """The layer with its mean output in the bias and a matrix of zeros, and its record; an embedding has it in all
    entries."""
    mean = _mean(layer, seen)
    if layer.looks_up:
        new = layer.with_weight(mean[:, None].expand(layer.m, layer.k))
    else:
        new = layer.with_weight(torch.zeros_like(layer.weight()), mean)
    scatter = seen.scatter
    assert scatter is not None
    if seen.side == "outputs":
        scatter = Scatter(scatter.n, mean, mean, torch.zeros_like(scatter.total))
    return new, replace(seen, scatter=scatter, fisher=None)


def _reading_less(layer: WeightLayer, seen: Surveyed) -> Surveyed:
    """What was seen of a layer that reads fewer channels now, its input of as many."""
    shape = list(seen.shape)
    shape[-1 - len(layer.kernel)] = layer.channels
    return replace(seen, shape=tuple(shape))


def _renumbered(feed: Feed, stay: Staying, layers: Mapping[str, WeightLayer]) -> Feed:
    """The feed, its columns counted among those that stay."""
    readers = dict(feed.readers)
    for path in readers.keys() & stay.columns.keys():
        kept = stay.columns[path]
        places = torch.zeros(layers[path].k, dtype=torch.long).index_copy_(0, kept, torch.arange(len(kept)))
        readers[path] = places[readers[path]]
    return Feed(feed.sources, readers, feed.carriers)
