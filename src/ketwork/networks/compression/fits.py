"""All layers of a network fitted in given forms: each by itself, or one after another in lockstep."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations import Batch
from ketwork.networks.compression.allocation import Choice, pareto
from ketwork.networks.compression.budgets import Budget
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.costs import EIGHT_BITS
from ketwork.networks.compression.covariance import Scatter, added
from ketwork.networks.compression.factors import Metric, Pair, refit
from ketwork.networks.compression.forms import DENSE, Form
from ketwork.networks.compression.layers import WeightLayer, weight_layers
from ketwork.networks.compression.lockstep import run_in_step
from ketwork.networks.compression.reductions import Reducing, Reductions, rounded_to_bits
from ketwork.networks.compression.scratch import Scratch
from ketwork.networks.compression.surgery import replace as put
from ketwork.networks.compression.surgery import sharing
from ketwork.networks.compression.survey import WIDEST_INPUT, Survey
from ketwork.networks.compression.tied import Tied, TiedReductions

_JUDGES = 4  # every so many-th batch judges the ridge
_FEW = 32  # choices of a layer that the descent looks at
_PART = 2**24  # bytes of unfolded patches at a time

Forms = Mapping[str, Form]


@dataclass
class Fits:
    """What the survey knows of each layer, as reductions to all forms: with and without the metric.

    `rows` are those that are left of layers that are smaller than the network's own (None: all), `carriers` the modules
    between them, by path. `scratch` keeps what is computed.
    """

    layers: Sequence[WeightLayer]
    survey: Survey
    rows: Mapping[str, Tensor | None] = field(default_factory=dict)
    carriers: Mapping[str, nn.Module] = field(default_factory=dict)
    multiple_of: int = 8
    scratch: Scratch = field(default_factory=partial(Scratch, sys.maxsize))
    _metrics: dict[str, Metric] = field(default_factory=dict)
    _reductions: dict[tuple[str, bool], Reducing] = field(default_factory=dict)
    _choices: dict[str, list[Choice]] = field(default_factory=dict)
    _weights: dict[str, Tensor] = field(default_factory=dict)

    def forget(self) -> None:
        """Drops what was computed of layers and what was seen of them; nothing can be fitted after it."""
        for known in (self._metrics, self._reductions, self._choices, self._weights):
            known.clear()
        for seen in self.survey.layers.values():
            seen.scatter = seen.fisher = seen.channels = None

    def metric(self, layer: WeightLayer, weighted: bool) -> Metric:
        """H of the layer: 1 where it is not weighted, or no gradient was to be had."""
        fisher = self.survey.fisher(layer.path) if weighted else None
        if fisher is None:
            return Metric.none(layer.weight())
        self.scratch.rest()
        if layer.path not in self._metrics:
            metric = Metric.of(fisher)
            if metric.vectors is not None:
                metric = Metric(metric.root, self.scratch.kept(metric.vectors))
            self._metrics[layer.path] = metric
        return self._metrics[layer.path]

    def reductions(self, layer: WeightLayer, weighted: bool) -> Reducing:
        """The layer in all forms. Where memory is short those without the metric, which few ask for, are made anew."""
        key = (layer.path, weighted)
        self.scratch.rest()
        if key in self._reductions:
            return self._reductions[key]
        if layer.path not in self._weights:
            self._weights[layer.path] = self.scratch.kept(layer.weight())
        seen, weight = self.survey.layers[layer.path], self._weights[layer.path]
        if isinstance(layer, Tied):
            self._reductions[key] = self._of_both(layer, weight, weighted)
            return self._reductions[key]
        inside = seen.side == "inputs"
        result = Reductions(
            weight,
            layer.bias(),
            layer.kernel,
            self.metric(layer, weighted),
            seen.scatter if inside else None,
            None if inside else seen.scatter,
            seen.channels,
            splits=layer.splits,
        )
        numbers = min(layer.m, layer.k) * (layer.m + layer.k)
        if weighted or self.scratch.left >= numbers * result.weight.itemsize:
            result.kept = self.scratch.kept
            self._reductions[key] = result
        return result

    def _of_both(self, layer: Tied, weight: Tensor, weighted: bool) -> TiedReductions:
        """An embedding with the head that has its weight."""
        words, inputs = (self.survey.layers[part.path].scatter for part in layer.parts)
        assert words is not None
        assert inputs is not None
        pulled = self.survey.fisher(layer.head.path) if weighted else None
        return TiedReductions.of(layer, weight, words, inputs, self.metric(layer, weighted), pulled)

    def smaller(
        self,
        layers: Mapping[str, WeightLayer],
        survey: Survey,
        rows: Mapping[str, Tensor | None],
        carriers: Mapping[str, nn.Module],
    ) -> Fits:
        """The fits of a network with these smaller layers; what is known of the others is known there too."""
        metrics = {path: metric for path, metric in self._metrics.items() if rows.get(path) is None}
        reductions = {key: own for key, own in self._reductions.items() if key[0] not in rows}
        return Fits(
            list(layers.values()), survey, rows, carriers, self.multiple_of, self.scratch, metrics, reductions
        )

    def choices(self, layer: WeightLayer, budget: Budget, scale: float, few: bool = False) -> list[Choice]:
        """What can be done with the layer: dense, or a form that is cheaper, with the KL that it costs, in nats.

        Of a layer whose output is constant the cheapest alone.
        `scale` multiplies the estimated KL. Forms that cost no less than another of no more error are skipped, and
        with `few` all but some.
        """
        if layer.path not in self._choices:
            reductions, own = self.reductions(layer, True), budget.sizes[layer.path]
            every = [
                Choice(form, budget.price(layer.path, form, own.m, own.c), reductions.error(form) / 2)
                for form in budget.options(layer.path, reductions, self.multiple_of)
            ]
            if reductions.total == 0:  # a constant: there is nothing to weigh
                self._choices[layer.path] = [min(every, key=lambda one: (one.error, one.cost))]
            else:
                self._choices[layer.path] = pareto(every)
        result = self._choices[layer.path]
        if few and len(result) > _FEW:
            result = [result[round(i * (len(result) - 1) / (_FEW - 1))] for i in range(_FEW)]
        return [Choice(one.form, one.cost, scale * one.error) for one in result]


def one_shot(base: nn.Module, fits: Fits, forms: Forms, weighted: bool) -> nn.Module:
    """The network with each layer cut by itself."""
    new: dict[str, nn.Module] = dict(fits.carriers)
    for layer in fits.layers:
        form = forms[layer.path]
        if not form.dense or form.bits:
            new |= _made(layer, form, fits, weighted)
        elif layer.path in fits.rows:
            new |= dict.fromkeys(layer.paths, layer.module)
    twin = sharing(base)
    put(twin, new)
    return twin


def _made(layer: WeightLayer, form: Form, fits: Fits, weighted: bool) -> dict[str, nn.Module]:
    """New modules for a layer in a form, by path; a copy of its own where that is dense."""
    new = layer.copied() if form.dense else layer.in_form(form, *fits.reductions(layer, weighted).cut(form))
    for module in set(new.values()):
        in_bits(module, form.bits)
    return new


def in_bits(module: nn.Module, bits: int) -> nn.Module:
    """The module, whose weights are rounded where it is to have 8 bits, in place."""
    if bits:
        for part in module.modules():
            weight = part._parameters.get("weight")
            if weight is not None:
                with torch.no_grad():
                    weight.copy_(rounded_to_bits(weight.double()))
                setattr(part, EIGHT_BITS, True)
    return module


@dataclass(frozen=True)
class Variant:
    """One way to fit in lockstep: its forms, whether the metric is used, whether dense layers are refitted too.

    `fits` are its own where its layers are smaller than the network's.
    """

    forms: Forms
    weighted: bool
    fits: Fits | None = None
    refit_dense: bool = True


@torch.no_grad()
def sequential(
    base: nn.Module,
    fits: Fits,
    variant: Variant,
    calibration: Calibration,
    batches: Sequence[Batch],
    part: int = _PART,
) -> tuple[nn.Module, frozenset[str]]:
    """The network, each layer fitted on what the layers before it, already fitted, put out.

    One forward pass of the original and one of the new network over `batches`. With it come the layers that were fitted
    by themselves after all (called not once, or in another order). `part` bounds the bytes of patches at a time.
    """
    twin = _Twin.of(base, variant.fits or fits, variant)
    by_path = {layer.path: layer for layer in fits.layers}
    order = [path for path in fits.survey.order if path in by_path and twin.refitted(path)]

    def meet(path: str, inputs: list[list[Tensor]]) -> None:
        layer, small = by_path[path], twin.regressed(path)
        inside, across = _Parts(), _Parts()
        for i, (x, y, batch) in enumerate(zip(*inputs, batches, strict=True)):
            for out, rows in _paired(layer, x, small, twin.reaching(path, y), batch.mask, part):
                if len(out) != len(rows):
                    return
                inside.add(i, Scatter.of(rows))
                across.add(i, Scatter.of(out, rows))
        twin.fit(
            layer, *(Pair(a, b.covariance(), b.left) for a, b in zip(inside.all(), across.all(), strict=True))
        )

    calls = [lambda model, batch=batch: calibration.output(model, batch) for batch in batches]
    run_in_step([base, twin.model], calls, order, meet)
    return twin.finished()


def _paired(
    layer: WeightLayer, x: Tensor, small: WeightLayer, y: Tensor, mask: Tensor | None, most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the original's layer makes of x, less its bias, and the rows of y that the smaller network's reads, in
    parts."""
    if not layer.convolution:
        out = layer.rows_out(layer.module(x), mask)
        yield out - layer.bias().to(out), small.rows_in(y, mask)
        return
    if x.ndim == len(layer.kernel) + 1:
        x, y = x.unsqueeze(0), y.unsqueeze(0)
    each = small.positions(y) * small.k * y.itemsize
    step = max(1, most // max(each, 1))
    for some, theirs in zip(x.split(step), y.split(step), strict=True):
        count = small.positions(theirs)
        share = max(1, round(each / most)) if len(theirs) == 1 else 1
        places = None if share == 1 else torch.arange(0, count, share)
        out = layer.module(some).flatten(2).transpose(1, 2)
        if places is not None:
            out = out[:, places]
        out = out.reshape(-1, layer.m)
        yield out - layer.bias().to(out), torch.cat(list(small.row_parts(theirs, None, places, 2 * most)))


@dataclass
class _Twin:
    """A copy of the network on its way, its layers in their forms, with numbers that change as they are fitted.

    Of a layer all of whose moments can be had the whole matrix is fitted and then reduced to its form; of others the
    last module of the form alone.
    """

    model: nn.Module
    fits: Fits
    variant: Variant
    layers: dict[str, WeightLayer]
    cut: set[str]
    fitted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, base: nn.Module, fits: Fits, variant: Variant) -> _Twin:
        new: dict[str, nn.Module] = dict(fits.carriers)
        cut = set()
        for layer in fits.layers:
            form = variant.forms[layer.path]
            if layer.refits or form != DENSE:
                new |= _made(layer, form, fits, variant.weighted)
            if not form.dense and layer.refits:
                cut.add(layer.path)
        model = sharing(base)
        put(model, new)
        return cls(model, fits, variant, {layer.path: layer for layer in fits.layers}, cut)

    def _total(self, path: str) -> bool:
        layer = self.layers[path]
        return layer.known and layer.k <= WIDEST_INPUT

    def refitted(self, path: str) -> bool:
        """Whether a layer is fitted here."""
        if path in self.cut or not self.layers[path].refits:
            return path in self.cut
        return self.variant.refit_dense and self.layers[path].has_bias and self._total(path)

    def regressed(self, path: str) -> WeightLayer:
        """The layer whose inputs the fit is of: the layer, or the last module of its form."""
        if self._total(path):
            return self.layers[path]
        holder = nn.Module()
        holder.last = self._module(path)[-1]
        return weight_layers(holder)[0][0]

    def reaching(self, path: str, x: Tensor) -> Tensor:
        """What comes to it, where x comes to the layer."""
        return x if self._total(path) else self._module(path)[:-1](x)

    def fit(self, original: WeightLayer, *pairs: Pair) -> None:
        """`pairs` are of all batches, of those to fit a ridge on and of those to judge it by."""
        path = original.path
        layer, bias, form = self.layers[path], original.bias(), self.variant.forms[path]
        metric = self.fits.metric(layer, self.variant.weighted)
        rows = self.fits.rows.get(path)
        if rows is not None:
            bias, pairs = bias[rows], tuple(pair.of(rows) for pair in pairs)
        total, part, rest = pairs
        if not self._total(path):
            last = self.regressed(path)
            result = refit(last.weight(), bias, total, part, rest, metric)
            self._set([last.module], [result.dense], result.bias, form)
        else:
            result = refit(layer.weight(), bias, total, part, rest, metric)
            if form.dense:
                self._set([self._module(path)], [result.dense], result.bias, form)
            else:
                reduced = Reductions(
                    result.dense, result.bias, layer.kernel, metric, total.inputs, target=result.target
                )
                self._set(list(self._module(path)), *reduced.cut(form), form)
        self.fitted.add(path)

    def finished(self) -> tuple[nn.Module, frozenset[str]]:
        """The network, and the layers in another form that were not fitted here."""
        return self.model, frozenset(self.cut) - self.fitted

    def _module(self, path: str) -> Any:
        return self.model.get_submodule(path)

    def _set(self, modules: Sequence[Any], matrices: Sequence[Tensor], bias: Tensor, form: Form) -> None:
        with torch.no_grad():
            for module, matrix in zip(modules, matrices, strict=True):
                module.weight.copy_(matrix.reshape(module.weight.shape))
            last = modules[-1]
            if last.bias is None:
                last.bias = nn.Parameter(last.weight.new_zeros(len(bias)), requires_grad=False)
            last.bias.copy_(bias)
            for module in modules:
                in_bits(module, form.bits)


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


def all_dense(layers: Sequence[WeightLayer]) -> dict[str, Form]:
    """The forms of a network whose matrices all stay."""
    return {layer.path: DENSE for layer in layers}
