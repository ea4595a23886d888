"""A network made ready to be made smaller: BatchNorm folded, its layers and units found, surveyed and priced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations import Batch, Layers, select
from ketwork.networks.compression.budgets import budget, measures
from ketwork.networks.compression.calibration import Calibration, picked
from ketwork.networks.compression.dead import Trimmed, trimmed
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.layers import WeightLayer, weight_layers
from ketwork.networks.compression.restructuring import Apart
from ketwork.networks.compression.scratch import Scratch
from ketwork.networks.compression.search import Work
from ketwork.networks.compression.surgery import fold_batchnorm, read_directly, same, sharing
from ketwork.networks.compression.survey import WIDEST, WIDEST_INPUT, Survey, Surveyed, run_survey
from ketwork.networks.compression.tied import Tied, as_one_module, tied_layers
from ketwork.networks.compression.unit_discovery import feeds
from ketwork.networks.compression.unit_removal import Narrowing, states_of, usable
from ketwork.networks.runtime import Processes, give_back
from ketwork.records import pack, unpack

_TRIED = 8  # samples on which a layer's own forward, folding and whether modules can be replaced are tried


def prepared(
    base: nn.Module,
    calibration: Calibration,
    *,
    layers: Layers,
    kind: str,
    multiple_of: int,
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
    run = partial(_predicted, calibration, picked(first, torch.arange(min(first.size, _TRIED))))
    total = measures(calibration)[kind](base)
    folded = fold_batchnorm(base, run)
    apart = Apart.of(base)
    chosen = select(base, layers).chosen
    as_one_module(base, chosen)
    result, left = weight_layers(base)
    pairs = tied_layers(base, left)
    for part in _parts([*result, *pairs]):
        if not any(path in chosen for path in part.paths):
            left[part.path] = "not among `layers`"
    result = _verified(base, [layer for layer in result if layer.path not in left], run, left)
    pairs = _complete(pairs, left)
    fed, staying = feeds(base, result, calibration.rows, first)
    readers = {path for feed in fed for path in feed.readers} | {part.path for part in _parts(pairs)}
    inside = {layer.path for layer in _parts([*result, *pairs])} if kind == "bytes" else readers
    scratch = Scratch(memory)
    seen = run_survey(base, _parts([*result, *pairs]), calibration, generator, inside, memory, scratch)
    give_back()
    if group is not None:
        device = next(base.parameters()).device
        header, tensors = pack(group.add_up(seen))
        if group.rank:
            return None
        seen = unpack(Survey, header, {name: tensor.to(device) for name, tensor in tensors.items()})
    constant = calibration.constant
    tied = {part.path for part in _parts(pairs)}
    for layer in _parts([*result, *pairs]):
        record = seen.layers[layer.path]
        if record.scatter is None or record.scatter.n == 0:
            left[layer.path] = "it was never called"
        elif (constant or layer.path in tied) and seen.differentiable and _unheard(record):
            left[layer.path] = "the predictions do not depend on its output"
        elif layer.path in tied and not layer.looks_up and layer.path not in seen.order:
            left[layer.path] = "its weight is tied to another module's, and it runs more than once"
    result, pairs = _staying(result, left), _complete(pairs, left)
    replaced = [part.paths for part in _parts([*result, *pairs]) if not part.repeated]
    left |= read_directly(base, replaced, run)
    result, pairs = _staying(result, left), _complete(pairs, left)
    fed = usable(fed, result, seen.order, WIDEST_INPUT)
    rest = Trimmed(base, result, seen, fed)
    if not constant:
        rest = trimmed(rest, calibration)
        left |= rest.left
    result = [*_staying(rest.layers, left), *pairs]
    staying |= dict.fromkeys((layer.path for layer in pairs), "its weight is a head's too")
    if not result:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(left.items())[:8])
        raise ValueError(
            "Argument `model` must have a linear layer or a convolution that can be compressed, but has none"
            f"{f' ({reasons})' if reasons else ''}."
        )
    for layer in result:
        record = rest.survey.layers[layer.path]
        if _unheard(record) and layer.path not in rest.units:
            record.fisher = None  # nothing is known of how much it matters before it is measured
    base, seen = rest.base, rest.survey
    prices = budget(kind, total, base, result, seen, calibration, multiple_of)
    if kind == "latency":
        prices = replace(prices, measure=partial(_as_given, prices.measure, base, apart))
    fits = Fits(result, seen, multiple_of=multiple_of, scratch=scratch)
    fed = usable(rest.feeds, result, seen.order, WIDEST_INPUT)
    states = states_of(base, fed, {layer.path: layer for layer in result})
    narrowing = Narrowing(base, fits, fed, states)
    return Work(
        base,
        result,
        left,
        folded,
        calibration,
        seen,
        fits,
        prices,
        narrowing,
        multiple_of,
        memory,
        apart,
        staying,
        rest,
    )


def _parts(layers: Sequence[WeightLayer]) -> list[WeightLayer]:
    return [part for layer in layers for part in layer.parts]


def _staying(layers: Sequence[WeightLayer], left: Collection[str]) -> list[WeightLayer]:
    """Those that nothing speaks against."""
    return [layer for layer in layers if layer.path not in left]


def _complete(pairs: Sequence[Tied], left: dict[str, str]) -> list[Tied]:
    """The pairs both of whose modules may be replaced; of others, the second module gets the reason of the first."""
    result = []
    for pair in pairs:
        why = [part for part in pair.parts if part.path in left]
        if not why:
            result.append(pair)
        for part in pair.parts if why else ():
            reason = f"its weight is also {why[0].path}'s: {left[why[0].path]}"
            left |= {path: left.get(part.path, reason) for path in part.paths}
    return result


def _unheard(record: Surveyed) -> bool:
    """Whether no gradient came to a layer."""
    return record.fisher is None or not bool(record.fisher.any())


def _as_given(
    measure: Callable[[nn.Module], float], base: nn.Module, apart: Apart, model: nn.Module
) -> float:
    """The measured cost of a candidate as it will be given, its recurrent networks together again."""
    return measure(apart.together(sharing(model), base, model) if apart.originals else model)


def _predicted(calibration: Calibration, batch: Batch, model: nn.Module) -> Tensor:
    """All that the network predicts for a batch, in one tensor."""
    return torch.cat([rows.flatten() for rows in calibration.rows(model, batch)])


def _verified(
    base: nn.Module, result: Sequence[WeightLayer], run: Callable[[nn.Module], Tensor], left: dict[str, str]
) -> list[WeightLayer]:
    """The layers that compute W x + b; of those with a forward of their own it is tried whether x is known.

    What is no such layer gets its reason in `left`.
    """
    inputs: dict[str, Tensor] = {}

    def note(path: str, module: nn.Module, given: Any) -> None:
        inputs.setdefault(path, given[0][:_TRIED].detach())

    own = [layer for layer in result if not layer.known and not layer.looks_up]
    if own:
        handles = [layer.module.register_forward_pre_hook(partial(note, layer.path)) for layer in own]
        with torch.no_grad():
            run(base)
        for handle in handles:
            handle.remove()
    kept = []
    for layer in result:
        if layer.k > WIDEST_INPUT and layer.m > WIDEST:
            left[layer.path] = f"{layer.m} × {layer.k} moments would be too large"
        elif layer.known or layer.path not in inputs:
            kept.append(layer)
        else:
            x = inputs[layer.path]
            with torch.no_grad():
                y = layer.module(x)
                doubled = layer.with_weight(2 * layer.weight(), 2 * layer.bias()).module(x)
                if not same(2 * y, doubled):
                    left[layer.path] = f"{type(layer.module).__name__} is not linear in its weight"
                    continue
                known = replace(layer, known=True)
                rows = known.rows_in(x)
                fits = len(rows) * layer.m == y.numel()
                out = layer.rows_out(y)
                if fits and same(out, rows @ layer.weight().to(rows).T + layer.bias().to(rows)):
                    layer = known
            kept.append(layer)
    return kept
