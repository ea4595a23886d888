"""What is to be saved: parameters, multiply-adds, bytes or measured seconds, with a price for each layer in each
form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from ketwork.networks.compression.calibration import Calibration, picked
from ketwork.networks.compression.costs import bytes_of, latencies, multiply_adds, parameters
from ketwork.networks.compression.forms import DENSE, Form, Sizes, taps
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.reductions import Reducing
from ketwork.networks.compression.survey import Survey

_LEAST = 0.005  # seconds of one timing of a layer, so that the clock's grain does not matter
_TIMED_RANKS = 4  # of each split that are timed; the others lie between
_FEW = 4  # a layer with so few times fewer inputs and outputs is timed for the overhead
_SCALE_BYTES = 4
_COUNTED = 2  # samples by which multiply-adds are counted


@dataclass(frozen=True)
class Budget:
    """One kind of cost: `whole` of the original network, `fixed` of what cannot be cut, `measure` of any network.

    `seconds`, where the cost is time, are those of each layer in each form, and `overheads` what it takes however small
    it is; `sizes` are the layers' own. `bytes_each` is of one number of the network.
    """

    kind: str
    total: float
    fixed: float
    sizes: Mapping[str, Sizes]
    has_bias: Mapping[str, bool]
    measure: Callable[[nn.Module], float]
    seconds: Mapping[str, Mapping[Form, float]]
    overheads: Mapping[str, float]
    bytes_each: int = 4

    def price(self, path: str, form: Form, m: int, c: int) -> float:
        """What a layer costs in a form with m outputs and c channels left.

        Exact but for seconds: of those, what is above the overhead is taken to go as the multiply-adds.
        """
        sizes = replace(self.sizes[path], m=m, c=c)
        bias = self.has_bias[path] or c < self.sizes[path].c
        if self.kind == "parameters":
            return sizes.parameters(form, bias)
        if self.kind == "macs":
            return sizes.macs(form)
        if self.kind == "bytes":
            weights, rest = sizes.weights(form), sizes.parameters(form, bias) - sizes.weights(form)
            if form.bits == 8:
                return weights + _SCALE_BYTES * sizes.outputs(form) + rest * self.bytes_each
            return (weights + rest) * self.bytes_each
        own = self.sizes[path]
        least = self.overheads.get(path, 0.0)
        return least + (self.seconds[path][form] - least) * sizes.macs(form) / max(own.macs(form), 1e-12)

    def extra(self, path: str, weights: int) -> float:
        """What so many weights beside a layer cost, that compute as often as it does."""
        if self.kind == "macs":
            return weights * self.sizes[path].calls
        return weights * {"parameters": 1, "bytes": self.bytes_each, "latency": 0}[self.kind]

    def options(self, path: str, reductions: Reducing, multiple_of: int) -> Iterator[Form]:
        """The forms that cost less than the dense one, which comes first."""
        own = self.sizes[path]
        dense = self.price(path, DENSE, own.m, own.c)
        yield DENSE
        every = self.seconds[path] if self.kind == "latency" else reductions.forms(multiple_of)
        for form in every:
            if not form.dense and self.price(path, form, own.m, own.c) < dense:
                yield form
        if self.kind == "bytes":
            eight = DENSE.with_bits(8)
            if self.price(path, eight, own.m, own.c) < dense:
                yield eight
            for form in reductions.forms(multiple_of):
                small = form.with_bits(8)
                if self.price(path, small, own.m, own.c) < self.price(path, eight, own.m, own.c):
                    yield small


def budget(
    kind: str,
    total: float,
    base: nn.Module,
    layers: Sequence[WeightLayer],
    survey: Survey,
    calibration: Calibration,
    multiple_of: int,
) -> Budget:
    """The prices of that kind, for a network that cost `whole` before anything was done to it."""
    measure = measures(calibration)[kind]
    sizes = {layer.path: sizes_of(layer, survey) for layer in layers}
    seconds: dict[str, dict[Form, float]] = {}
    overheads: dict[str, float] = {}
    of_base = min(measure(base), total)  # of what folding gave: never more, but for noise
    if kind == "latency":
        for layer in layers:
            # The time of others is not that of a product of their own.
            products = [part for part in layer.parts if not part.looks_up and not part.repeated]
            seconds[layer.path] = {DENSE: 0.0}
            for part in products:
                seconds[layer.path] = _timed(part, survey, multiple_of)
                overheads[layer.path] = _overhead(part, survey)
        measure = partial(_in_turns, calibration, base, of_base)
        dense = sum(of[DENSE] for of in seconds.values())
        if dense > of_base:  # alone, layers may take longer than in the network
            share = of_base / dense
            seconds = {path: {f: t * share for f, t in of.items()} for path, of in seconds.items()}
            overheads = {path: time * share for path, time in overheads.items()}
    each = next((p.itemsize for p in base.parameters() if p.is_floating_point()), 4)
    made = Budget(
        kind,
        total,
        0.0,
        sizes,
        {layer.path: layer.has_bias for layer in layers},
        measure,
        seconds,
        overheads,
        each,
    )
    dense = sum(made.price(path, DENSE, own.m, own.c) for path, own in sizes.items())
    return replace(made, fixed=max(of_base - dense, 0.0))


def sizes_of(layer: WeightLayer, survey: Survey) -> Sizes:
    """The layer's sizes, with the positions a sample at which it ran."""
    rows, *others = (survey.positions(part.path) for part in layer.parts)
    if not layer.convolution:
        head = others[0] if others else None
        return Sizes(layer.m, layer.channels, (), calls=rows, looks_up=layer.looks_up, head_calls=head)
    reads = survey.layers[layer.path].shape[-len(layer.kernel) :]
    puts = layer.grid(reads)
    return Sizes(layer.m, layer.channels, layer.kernel, tuple(reads), puts, rows / max(_area(puts), 1))


def measures(calibration: Calibration) -> dict[str, Callable[[nn.Module], float]]:
    """How each kind of cost of a whole network is measured: on the first batch, or some of its samples."""
    batch = calibration.fit[0]
    few = picked(batch, torch.arange(min(batch.size, _COUNTED)))

    def seconds(model: nn.Module) -> float:
        ran = calibration.ran
        result = latencies([lambda: calibration.output(model, batch)])[0]
        calibration.ran = ran  # no pass over the data
        return result

    def products(model: nn.Module) -> float:
        ran = calibration.ran
        result = multiply_adds(lambda: calibration.output(model, few), few.size)
        calibration.ran = ran
        return result

    return {
        "parameters": lambda model: float(parameters(model)),
        "macs": products,
        "latency": seconds,
        "bytes": lambda model: float(bytes_of(model)),
    }


def _in_turns(calibration: Calibration, base: nn.Module, total: float, model: nn.Module) -> float:
    """The seconds of a network where `base` takes `whole`: timed in turns, so that other work cancels."""
    batch, ran = calibration.fit[0], calibration.ran
    small, large = latencies([partial(calibration.output, one, batch) for one in (model, base)], least=_LEAST)
    calibration.ran = ran  # no pass over the data
    return total * small / large


def _timed(layer: WeightLayer, survey: Survey, multiple_of: int) -> dict[Form, float]:
    """The seconds of a layer on its first input, dense and in forms of two modules: a few ranks timed, others
    between."""
    x = torch.randn(survey.layers[layer.path].shape, generator=torch.Generator().manual_seed(0))
    x = x.to(layer.module.weight)
    seconds = {DENSE: latencies([lambda: layer.module(x)], least=_LEAST)[0]}
    for name in layer.splits:
        first, second = taps(name, layer.kernel)
        most = min(layer.m * _area(second), layer.channels * _area(first))
        ranks = [
            rank
            for rank in range(multiple_of, most + 1, multiple_of)
            if sum(matrix.numel() for matrix in _zeros(layer, Form(name, rank))) < layer.m * layer.k
        ]
        if not ranks:
            continue
        grid = sorted({ranks[round(i * (len(ranks) - 1) / (_TIMED_RANKS - 1))] for i in range(_TIMED_RANKS)})
        modules = [layer.module, *(_of_rank(layer, Form(name, rank)) for rank in grid)]
        dense, *times = latencies([partial(module, x) for module in modules], least=_LEAST)
        # More rank is never less work: what else it seems is noise.
        times = torch.tensor(times).cummax(0).values.tolist()
        for rank in ranks:
            i = next(i for i, r in enumerate(grid) if r >= rank)
            share = 1.0 if i == 0 else (rank - grid[i - 1]) / (grid[i] - grid[i - 1])
            low = times[max(i - 1, 0)]
            seconds[Form(name, rank)] = (low + share * (times[i] - low)) * seconds[DENSE] / dense
    return seconds


def _overhead(layer: WeightLayer, survey: Survey) -> float:
    """The seconds of a layer that do not go with its multiply-adds: by its time with few inputs and outputs."""
    shape = list(survey.layers[layer.path].shape)
    axis = -1 if not layer.convolution else len(shape) - 1 - len(layer.kernel)
    inputs = max(1, shape[axis] // _FEW)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw).to(layer.module.weight)
    weight = layer.weight()[: max(1, layer.m // _FEW), : layer.k // shape[axis] * inputs]
    small = layer.with_weight(weight, layer.bias()[: len(weight)])
    few = x.narrow(axis, 0, inputs).contiguous()
    share = weight.numel() / (layer.m * layer.k)
    if share == 1:
        return 0.0
    total, part = latencies([partial(layer.module, x), partial(small.module, few)], least=_LEAST)
    return min(max((part - share * total) / (1 - share), 0.0), total)


def _zeros(layer: WeightLayer, form: Form) -> list[torch.Tensor]:
    assert form.rank is not None
    first, second = (_area(part) for part in taps(form.name, layer.kernel))
    like = layer.module.weight
    return [
        like.new_zeros(form.rank, layer.channels * first),
        like.new_zeros(layer.m, form.rank * second),
    ]


def _area(kernel: tuple[int, ...]) -> int:
    area = 1
    for size in kernel:
        area *= size
    return area


def _of_rank(layer: WeightLayer, form: Form) -> nn.Module:
    return layer.factored(form, _zeros(layer, form), layer.bias())
