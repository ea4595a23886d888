"""What is to be saved: parameters, multiply-adds or measured seconds, with a price for each layer at each rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ketwork.networks.compression.allocation import Choice
from ketwork.networks.compression.calibration import Calibration
from ketwork.networks.compression.costs import latencies, multiply_adds, parameters
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.survey import Survey

_FEW = 4  # a layer with so few times fewer inputs and outputs is timed for the overhead
_LEAST = 0.005  # seconds of one timing of a layer, so that the clock's grain does not matter
_TIMED_SHARES = (0.25, 0.5, 0.75, 1.0)  # of the rank at which factors have as many parameters as the matrix


@dataclass(frozen=True)
class Budget:
    """One kind of cost: `whole` of the original network, `prices` of each layer dense (None) and at each rank.

    `overheads` is what a layer costs however small it is, `measure` measures a network's whole cost.
    """

    kind: str
    whole: float
    fixed: float
    prices: dict[str, dict[int | None, float]]
    overheads: dict[str, float]
    measure: Callable[[nn.Module], float]

    def price(self, layer: WeightLayer, rank: int | None, m: int, k: int) -> float:
        """What a layer costs with m outputs and k inputs left, of that rank or, where that costs less, dense.

        Exact but for seconds: of those, what is above the overhead is taken to go as the multiply-adds.
        """
        shares: dict[int | None, float] = {None: m * k / (layer.m * layer.k)}
        if rank is not None:
            shares[rank] = (m + k) / (layer.m + layer.k)
        prices = self.prices[layer.path]
        if self.kind == "parameters":
            has_bias = layer.has_bias or k < layer.k
            return min(m * k + (m if has_bias else 0), math.inf if rank is None else rank * (m + k) + m)
        least = self.overheads.get(layer.path, 0.0)
        return min(least + (prices[one] - least) * share for one, share in shares.items())

    def choices(self, fits: Fits, scales: Mapping[str, float]) -> list[list[Choice]]:
        """What can be done with each layer: dense, or a rank that is cheaper, with its harm in nats.

        `scales` multiplies the estimated harm of each layer.
        """
        result = []
        for layer in fits.layers:
            factors, prices = fits.factors(layer, True), self.prices[layer.path]
            scale = scales[layer.path]
            dense = prices[None]
            cheaper = [
                Choice(rank, price, scale * factors.tail(rank) / 2)
                for rank, price in prices.items()
                if rank is not None and price < dense
            ]
            result.append([Choice(None, dense, 0.0), *cheaper])
        return result

    @property
    def cheapest(self) -> float:
        """The least that all layers can cost by their ranks."""
        return sum(min(prices.values()) for prices in self.prices.values())

    @property
    def least(self) -> float:
        """The least share of the whole that can be reached by ranks."""
        return (self.fixed + self.cheapest) / self.whole


def budget(
    kind: str,
    whole: float,
    base: nn.Module,
    layers: Sequence[WeightLayer],
    survey: Survey,
    calibration: Calibration,
    multiple: int,
) -> Budget:
    """The prices of that kind, for a network that cost `whole` before anything was done to it.

    Ranks are multiples of `multiple` with which a layer has fewer parameters.
    """
    measure = measures(calibration)[kind]
    ranks = {layer.path: _ranks(layer, multiple) for layer in layers}
    prices: dict[str, dict[int | None, float]] = {}
    overheads: dict[str, float] = {}
    for layer in layers:
        if kind == "latency":
            prices[layer.path] = _timed(layer, ranks[layer.path], survey)
            overheads[layer.path] = _overhead(layer, survey)
            continue
        if kind == "parameters":
            prices[layer.path] = {None: layer.parameters}
            prices[layer.path] |= {rank: layer.factored_parameters(rank) for rank in ranks[layer.path]}
        else:
            positions = survey.positions(layer.path)
            prices[layer.path] = {None: positions * layer.m * layer.k}
            prices[layer.path] |= {rank: positions * rank * (layer.m + layer.k) for rank in ranks[layer.path]}
    of_base = min(measure(base), whole)  # of what folding gave: never more, but for noise
    if kind == "latency":
        measure = partial(_in_turns, calibration, base, of_base)
    dense = sum(price[None] for price in prices.values())
    if dense > of_base:  # alone, layers may take longer than in the network
        prices = {
            path: {rank: price * of_base / dense for rank, price in of.items()} for path, of in prices.items()
        }
        overheads = {path: time * of_base / dense for path, time in overheads.items()}
    return Budget(kind, whole, max(of_base - dense, 0.0), prices, overheads, measure)


def measures(calibration: Calibration) -> dict[str, Callable[[nn.Module], float]]:
    """How each kind of cost of a whole network is measured: on the first batch."""
    batch = calibration.fit[0]

    def seconds(model: nn.Module) -> float:
        return latencies([lambda: calibration.output(model, batch)])[0]

    def products(model: nn.Module) -> float:
        return multiply_adds(lambda: calibration.output(model, batch), batch.size)

    return {
        "parameters": lambda model: float(parameters(model)),
        "macs": products,
        "latency": seconds,
    }


def _in_turns(calibration: Calibration, base: nn.Module, whole: float, model: nn.Module) -> float:
    """The seconds of a network where `base` takes `whole`: timed in turns, so that other work cancels."""
    batch, ran = calibration.fit[0], calibration.ran
    small, large = latencies([partial(calibration.output, one, batch) for one in (model, base)], least=_LEAST)
    calibration.ran = ran  # no pass over the data
    return whole * small / large


def _ranks(layer: WeightLayer, multiple: int) -> list[int]:
    return [
        rank
        for rank in range(multiple, min(layer.m, layer.k) + 1, multiple)
        if layer.factored_parameters(rank) < layer.parameters
    ]


def _timed(layer: WeightLayer, ranks: list[int], survey: Survey) -> dict[int | None, float]:
    """The seconds of a layer on its first input, dense and at each rank: a few ranks timed, the others between them."""
    like = layer.module.weight
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(survey.layers[layer.path].shape, generator=draw).to(like)
    if not ranks:
        return {None: latencies([lambda: layer.module(x)], least=_LEAST)[0]}
    grid = sorted({ranks[0], *(ranks[round(share * (len(ranks) - 1))] for share in _TIMED_SHARES)})
    modules = [layer.module, *(_of_rank(layer, rank) for rank in grid)]
    dense, *times = latencies([partial(module, x) for module in modules], least=_LEAST)
    times = (
        torch.tensor(times).cummax(0).values.tolist()
    )  # more rank is never less work: what else it seems is noise
    prices: dict[int | None, float] = {None: dense}
    for rank in ranks:
        i = max(1, next((i for i, r in enumerate(grid) if r >= rank), len(grid) - 1)) if len(grid) > 1 else 0
        if i == 0:
            prices[rank] = times[0]
        else:
            share = (rank - grid[i - 1]) / (grid[i] - grid[i - 1])
            prices[rank] = times[i - 1] + share * (times[i] - times[i - 1])
    return prices


def _overhead(layer: WeightLayer, survey: Survey) -> float:
    """The seconds of a layer that do not go with its multiply-adds: by its time with few inputs and outputs."""
    shape = list(survey.layers[layer.path].shape)
    axis = -1 if not layer.convolution else len(shape) - (2 if layer.kind == "conv1d" else 3)
    inputs = max(1, shape[axis] // _FEW)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=draw).to(layer.module.weight)
    weight = layer.weight()[: max(1, layer.m // _FEW), : layer.k // shape[axis] * inputs]
    small = layer.with_weight(weight, layer.bias()[: len(weight)])
    few = x.narrow(axis, 0, inputs).contiguous()
    share = weight.numel() / (layer.m * layer.k)
    if share == 1:
        return 0.0
    whole, part = latencies([partial(layer.module, x), partial(small.module, few)], least=_LEAST)
    return min(max((part - share * whole) / (1 - share), 0.0), whole)


def _of_rank(layer: WeightLayer, rank: int) -> nn.Module:
    weight = layer.weight()
    return layer.factored(weight.new_zeros(rank, layer.k), weight.new_zeros(layer.m, rank), layer.bias())
