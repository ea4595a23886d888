"""All layers of a network fitted at given ranks: each by itself, or one after another in lockstep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations import Batch
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.covariance import Scatter, added
from ketwork.networks.compression.factors import Factors, Metric, Pair, from_inputs, from_outputs, refit
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.lockstep import lockstep
from ketwork.networks.compression.surgery import copied
from ketwork.networks.compression.surgery import replace as put
from ketwork.networks.compression.survey import Survey

WIDEST_INPUT = (
    4608  # features: a wider layer is not refitted (its k × k eigendecomposition would take minutes)
)

_JUDGES = 4  # every so many-th batch judges the ridge

Ranks = Mapping[str, int | None]


@dataclass
class Fits:
    """What the survey knows of each layer, as factors of all ranks: with and without the metric."""

    layers: Sequence[WeightLayer]
    survey: Survey
    rows: Mapping[str, Tensor | None] = field(
        default_factory=dict
    )  # of layers that are smaller than the network's own
    _metrics: dict[str, Metric] = field(default_factory=dict)
    _factors: dict[tuple[str, bool], Factors] = field(default_factory=dict)

    def metric(self, layer: WeightLayer, weighted: bool) -> Metric:
        """H of the layer: 1 where it is not weighted, or no gradient was to be had."""
        fisher = self.survey.fisher(layer.path) if weighted else None
        if fisher is None:
            return Metric.none(layer.weight())
        if layer.path not in self._metrics:
            self._metrics[layer.path] = Metric.of(fisher)
        return self._metrics[layer.path]

    def factors(self, layer: WeightLayer, weighted: bool) -> Factors:
        """The layer's factors, all ranks."""
        key = (layer.path, weighted)
        if key not in self._factors:
            seen = self.survey.layers[layer.path]
            assert seen.scatter is not None
            fit = from_outputs if seen.side == "outputs" else from_inputs
            self._factors[key] = fit(layer.weight(), layer.bias(), seen.scatter, self.metric(layer, weighted))
        return self._factors[key]


def one_shot(base: nn.Module, fits: Fits, ranks: Ranks, weighted: bool) -> nn.Module:
    """The network with each layer cut by itself."""
    new: dict[str, nn.Module] = {}
    for layer in fits.layers:
        rank = ranks[layer.path]
        if rank is not None:
            module: nn.Module = layer.factored(*fits.factors(layer, weighted).cut(rank))
        elif layer.path in fits.rows:
            module = copied(layer.module)
        else:
            continue
        new.update(dict.fromkeys(layer.paths, module))
    twin = copied(base)
    put(twin, new)
    return twin


@dataclass(frozen=True)
class Variant:
    """One way to fit in lockstep: its ranks, whether the metric is used, whether dense layers are refitted too.

    `fits` are its own where its layers are smaller than the network's.
    """

    ranks: Ranks
    weighted: bool
    fits: Fits | None = None
    refit_dense: bool = True


def sequential(
    base: nn.Module,
    fits: Fits,
    variant: Variant,
    calibration: Calibration,
    batches: Sequence[Batch],
) -> tuple[nn.Module, frozenset[str]]:
    """The network, each layer fitted on what the layers before it, already fitted, put out.

    One forward pass of the original and one of the new network over `batches`. With it come the layers that were fitted
    by themselves after all (called not once, or in another order).
    """
    twin = _Twin.of(base, variant.fits or fits, variant)
    by_path = {layer.path: layer for layer in fits.layers}
    order = [path for path in fits.survey.order if path in by_path and by_path[path].k <= WIDEST_INPUT]

    def meet(path: str, inputs: list[list[Tensor]]) -> None:
        layer = by_path[path]
        matrix = layer.weight()
        narrow = layer.m < layer.k  # the products with y = W x are then fewer than those with x
        inside, across = _Parts(), _Parts()
        for i, (x, y, batch) in enumerate(zip(*inputs, batches, strict=True)):
            original, row = layer.rows_in(x, batch.mask), twin.layers[path].rows_in(y, batch.mask)
            if len(original) != len(row):
                return
            inside.add(i, Scatter.of(row))
            across.add(i, Scatter.of(original @ matrix.to(x.dtype).T if narrow else original, row))
        turn = None if narrow else matrix
        twin.fit(layer, *(_pair(a, b, turn) for a, b in zip(inside.all(), across.all(), strict=True)))

    calls = [lambda model, batch=batch: calibration.output(model, batch) for batch in batches]
    lockstep([base, twin.model], calls, order, meet)
    return twin.finished()


@dataclass
class _Twin:
    """A copy of the network on its way: its layers hold W′ as one matrix until all are fitted."""

    model: nn.Module
    fits: Fits
    variant: Variant
    layers: dict[str, WeightLayer]
    cuts: dict[str, tuple[Tensor, Tensor, Tensor]]
    fitted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, base: nn.Module, fits: Fits, variant: Variant) -> _Twin:
        twin = cls(copied(base), fits, variant, {layer.path: layer for layer in fits.layers}, {})
        for layer in fits.layers:
            if layer.path in fits.rows:
                put(twin.model, dict.fromkeys(layer.paths, copied(layer.module)))
            rank = variant.ranks[layer.path]
            if rank is not None:
                twin._cut(layer, fits.factors(layer, variant.weighted), rank)
        return twin

    def fit(self, original: WeightLayer, *pairs: Pair) -> None:
        """`pairs` are of all batches, of those to fit a ridge on and of those to judge it by."""
        layer, bias, rank = self.layers[original.path], original.bias(), self.variant.ranks[original.path]
        if rank is None and not (self.variant.refit_dense and layer.has_bias):
            return
        metric = self.fits.metric(layer, self.variant.weighted)
        rows = self.fits.rows.get(layer.path)
        if rows is not None:
            bias, pairs = bias[rows], tuple(pair.of(rows) for pair in pairs)
        whole, part, rest = pairs
        found = refit(layer.weight(), bias, whole, part, rest, metric)
        if rank is None:
            self._set(layer, found.dense, found.bias)
        else:
            self._cut(layer, found.factors, rank)
        self.fitted.add(layer.path)

    def finished(self) -> tuple[nn.Module, frozenset[str]]:
        new: dict[str, nn.Module] = {}
        for layer in self.fits.layers:
            if layer.path in self.cuts:
                new.update(dict.fromkeys(layer.paths, layer.factored(*self.cuts[layer.path])))
        put(self.model, new)
        return self.model, frozenset(self.cuts) - self.fitted

    def _cut(self, layer: WeightLayer, factors: Factors, rank: int) -> None:
        first, second, bias = self.cuts[layer.path] = factors.cut(rank)
        self._set(layer, second @ first, bias)

    def _set(self, layer: WeightLayer, matrix: Tensor, bias: Tensor) -> None:
        module: Any = self.model.get_submodule(layer.path)
        with torch.no_grad():
            here = matrix.T if layer.kind == "Conv1D" else matrix
            module.weight.copy_(here.reshape(module.weight.shape))
            if module.bias is None:
                module.bias = nn.Parameter(module.weight.new_zeros(layer.m), requires_grad=False)
            module.bias.copy_(bias)


@dataclass
class _Parts:
    """The batches to fit a ridge on, and those to judge it by: every fourth, or the same where there are few."""

    fitted: Scatter | None = None
    judged: Scatter | None = None

    def add(self, number: int, scatter: Scatter) -> None:
        if number % _JUDGES == _JUDGES - 1:
            self.judged = added(self.judged, scatter)
        else:
            self.fitted = added(self.fitted, scatter)

    def all(self) -> tuple[Scatter, Scatter, Scatter]:
        """All, those to fit on and those to judge by."""
        assert self.fitted is not None
        if self.judged is None:
            return self.fitted, self.fitted, self.fitted
        return self.fitted + self.judged, self.fitted, self.judged


def _pair(inputs: Scatter, across: Scatter, matrix: Tensor | None) -> Pair:
    """`across` is of W x with x̃, or of x with x̃ where W is given."""
    if matrix is None:
        return Pair(inputs, across.covariance(), across.left)
    return Pair(inputs, matrix @ across.covariance(), matrix @ across.left)
