"""`compress`: a smaller network that predicts what the original does, without training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ketwork._compat import renamed
from ketwork._version import __version__
from ketwork.networks.activations.batches import Forward, Mask
from ketwork.networks.activations.captures import eager, unwrapped
from ketwork.networks.activations.selectors import Layers
from ketwork.networks.compression import arguments
from ketwork.networks.compression.calibration import calibration
from ketwork.networks.compression.candidates import Candidate, LayerChange
from ketwork.networks.compression.costs import Costs, latencies, multiply_adds_within, parameters
from ketwork.networks.compression.loader import unfused
from ketwork.networks.compression.result import Compressed, LayerRow, Tried, described
from ketwork.networks.compression.search import SLOWER, Work, prepared
from ketwork.networks.compression.surgery import copied
from ketwork.networks.measures.predictions import Output
from ketwork.networks.runtime.distributed import joined
from ketwork.networks.runtime.memory import parse

_NAMED = 3  # layers that a warning names
_HALVINGS = 6  # of the search for the smallest network within a bound


@renamed(budget="cost", samples="max_samples", multiple="multiple_of", generator="seed", processes="distributed")
@torch.inference_mode(mode=False)
def compress(
    model: nn.Module,
    data: Any,
    *,
    keep: float | None = None,
    cost: str = "parameters",
    max_kl: float | None = None,
    max_drop: float | None = None,
    layers: Layers = "all",
    output: Output = None,
    loss: str | None = None,
    labels: str | None = None,
    mask: Mask = None,
    forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    multiple_of: int = 8,
    memory: int | str = 2**32,
    seed: int | torch.Generator = 0,
    distributed: Any = None,
    timeout: float | None = None,
    progress: bool | Callable[[int], None] = False,
) -> Compressed:
    """A smaller network of plain torch.nn modules that predicts what `model` does, without training.

    Each linear layer and convolution may become two thinner ones: its output is truncated to the leading
    eigenstates of its density over the data, W′ = U(UᵀW), or of that weighted by how much the predictions depend
    on it. Which layer gets which rank, or stays whole, is one minimisation of the estimated KL over all layers.
    Beside that, neurons, channels and attention heads are removed outright that the layers reading them can do
    without, once those are refitted to what is left. Several candidates are made, of either and of both; the one
    with the least KL from the original on data held back is returned, with a budget of latency the best of those
    that were timed to be within it.

    Args:
        model: any `nn.Module`; it is copied and never changed.
        data: calibration data, as in `ketwork.study`; a few hundred to a few thousand samples like those that the
            network will meet. No labels are needed. Every fifth sample is held back to choose by.
        keep: the share of the whole network's cost that may stay.
        cost: what `keep` counts: "parameters", "macs" (multiply-adds of a sample) or "latency", the measured seconds
            of a batch.
        max_kl: in place of `keep`, the most that predictions may change, nats a prediction: the smallest network
            within it.
        max_drop: in place of `keep`, the most accuracy that may be lost on data held back (0.01 is one point); the
            data must have labels.
        layers: which layers may be changed: selectors as in `ketwork.study`.
        output: which part of the network's output matters: a key, or a callable (output, batch) -> tensor with
            features last. None takes `logits`, else the first tensor.
        loss: "kl" where the output is logits, "squared" where it is anything else, ½ ‖f − f′‖² being the KL of
            normal distributions of unit variance. None: "kl" for `logits` and for a network that returns one
            tensor with several features.
        labels: the key of labels in mappings where it is neither "labels" nor "label".
        mask: which positions exist, as in `ketwork.study`.
        forward: `forward(model, batch)` in place of the usual call.
        max_samples: stop after so many.
        batch_size: for data that is not batched yet; and what latency is measured with.
        multiple_of: ranks, and the numbers of units that stay where some are removed, are multiples of it.
        memory: bytes (or a text such as "2GB") that the sequential fit may hold of activations, and bytes of the original's predictions that
            may be kept; each takes as many samples as fit.
        seed: draws the directions of gradients: an integer or a `torch.Generator`.
        distributed: as in `ketwork.study`, for the moments of layers and of gradients alone: process 0 then continues
            by itself, with its own part of the data to choose by and for the sequential fits. Each process needs
            five samples at least.
        timeout: older spelling of the seconds in `distributed=Distributed(mode, timeout)`.
        progress: True for a bar with the time left, or a callable that gets the samples that went through networks so
            far and an estimate of how many there will be, after each batch.

    Returns:
        A `Compressed`: the network, a table of what became of each layer and why, and measured totals.
        With `distributed`, the others than process 0 have None.

    Raises:
        TypeError, ValueError: an argument is not what it must be; the data holds NaN, or fewer than five samples; no
            layer can be compressed; or the budget cannot be met, in which case the least that can is named.

    Cost: seven to eight passes over the data, forward or backward, and eigendecompositions, O(min(m, k)³) a layer
    m × k and O(k³) for the sequential fit.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> result = compress(net, torch.randn(100, 64), keep=0.6)
    >>> result.model[0], result.after.parameters <= 0.6 * result.before.parameters
    (Sequential(
      (0): Linear(in_features=64, out_features=16, bias=False)
      (1): Linear(in_features=16, out_features=64, bias=True)
    ), True)
    """
    aim = arguments.target(cost, keep, max_kl, max_drop)
    arguments.check_counts(multiple_of=multiple_of, batch_size=batch_size)
    held, draw = parse(memory), arguments.generator(seed)
    network = unwrapped(model)
    base = unfused(copied(network)).requires_grad_(False)
    mode, wait = arguments.processes(distributed, timeout)
    with joined(mode, wait) as group, eager(base), arguments.shown(progress) as report:
        if group is not None and group.rank:
            draw = group.apart(draw)
        gathered = calibration(
            base,
            data,
            samples=max_samples,
            batch_size=batch_size,
            mask=mask,
            output=output,
            loss=loss,
            forward=forward,
            labels=labels,
            progress=report,
            mine=None if group is None else group.mine,
        )
        gathered.remember(base, held)
        work = prepared(
            base,
            gathered,
            layers=layers,
            kind=aim.cost,
            multiple=multiple_of,
            memory=held,
            generator=draw,
            group=group,
        )
        if work is None:
            return None  # type: ignore[return-value]  # process 0 has the network, as documented
        if keep is not None:
            best, tried = _at(work, keep)
        elif max_kl is not None:
            best, tried = _smallest(work, lambda candidate: work.kl(candidate) <= max_kl)
        else:
            assert max_drop is not None
            least = gathered.accuracy(base) - max_drop
            best, tried = _smallest(work, lambda candidate: gathered.accuracy(candidate.model) >= least)
        if best is None:
            least_kl = min(one.kl for one in tried)
            raise ValueError(
                f"The bound cannot be met: nothing that was tried is within it. The least KL of any is {least_kl:.3g} "
                "nats a prediction. Give a larger `max_kl` or `max_drop`."
            )
        settings = {
            "keep": keep,
            "cost": aim.cost,
            "max_kl": max_kl,
            "max_drop": max_drop,
            "output": str(gathered.predictions.output),
            "loss": gathered.predictions.loss,
            "samples": gathered.samples,
            "held_back": sum(batch.size for batch in gathered.held_back),
            "batch_size": batch_size,
            "timed_batch": gathered.fit[0].size,
            "multiple_of": multiple_of,
            "gradients": work.survey.differentiable,
            "processes": 1 if group is None else group.count,
            "torch": torch.__version__,
            "ketwork": __version__,
        }
        return _record(network, work, best, tried, settings)


def _at(
    work: Work, keep: float, good: Callable[[Candidate], bool] = lambda _: True
) -> tuple[Candidate | None, list[Tried]]:
    """The best good candidate that keeps this share, None where none is good, and all that were tried."""
    if keep < work.budget.least:
        least = math.ceil(1000 * work.budget.least) / 1000
        raise ValueError(
            f"Argument `keep` must be at least {least:.3f} of the {work.budget.kind} here, but is {keep}: "
            f"{work.budget.fixed / work.budget.whole:.3f} are in modules that are left alone. Give a larger share."
        )
    best: tuple[tuple[bool, float], Candidate] | None = None
    tried: list[Tried] = []
    for candidate in work.candidates(keep * work.budget.whole):
        kl = work.kl(candidate)
        cost = work.budget.measure(candidate.model)
        tried.append(Tried(candidate.name, kl, cost))
        late = work.budget.kind == "latency" and cost > keep * work.budget.whole * SLOWER
        if (best is None or (late, kl) < best[0]) and good(candidate):
            best = (late, kl), candidate
    return (None if best is None else best[1]), tried


def _smallest(work: Work, good: Callable[[Candidate], bool]) -> tuple[Candidate | None, list[Tried]]:
    """The smallest network found that is good enough, and what was tried at its size.

    The share is halved in on with candidates that cost one evaluation each; at the one found the better fits are
    made, and while they have room, at smaller shares.
    """
    low, high = work.budget.least, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if good(work.quick(middle * work.budget.whole)):
            high = middle
        else:
            low = middle
    best, tried = _at(work, high, good)
    step = (1 - work.budget.least) / 2**_HALVINGS
    while high - step > work.budget.least:
        smaller, others = _at(work, high - step, good)
        if smaller is None:
            break
        best, tried, high = smaller, others, high - step
        step *= 2
    return best, tried


def _record(
    network: nn.Module, work: Work, best: Candidate, tried: list[Tried], settings: dict[str, Any]
) -> Compressed:
    gathered, small = work.calibration, best.model
    original = copied(network)
    replaced = described(original, small)
    batch, passes = gathered.fit[0], gathered.passes
    calls = [partial(gathered.output, model, batch) for model in (original, small)]
    times = latencies(calls)
    own = {path: module for path, module in original.named_modules() if _parameters(module)}
    products = [
        multiply_adds_within(call, batch.size, {path: model.get_submodule(path) for path in own if path})
        for model, call in zip((original, small), calls, strict=True)
    ]
    before, after = (
        Costs(parameters(model), counts[""], seconds)
        for model, counts, seconds in zip((original, small), products, times, strict=True)
    )
    kl = next(one.kl for one in tried if one.name == best.name)
    rows = tuple(_row(path, module, work, best, products) for path, module in own.items())
    _restore(network, small)
    return Compressed(
        small,
        rows,
        tuple(tried),
        best.name,
        before,
        after,
        kl,
        passes,
        settings,
        replaced,
        _warnings(work, best),
    )


def _warnings(work: Work, best: Candidate) -> tuple[str, ...]:
    found = []
    if work.calibration.constant:
        found.append(
            "The original predicts the same for all data held back, so the KL says nothing of other data."
        )
    few = [
        f"{layer.path} ({rows:,} for {layer.k:,})"
        for layer in work.layers
        if not best.changes[layer.path].untouched and (rows := work.survey.layers[layer.path].rows) < layer.k
    ]
    if few:
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        found.append(
            f"Fewer inputs than features were seen of {', '.join(few[:_NAMED])}{more}: other data will fare worse. "
            "Give more."
        )
    return tuple(found)


def _row(
    path: str, module: nn.Module, work: Work, best: Candidate, products: list[dict[str, float]]
) -> LayerRow:
    """What became of one module that had parameters of its own."""
    layer = next((layer for layer in work.layers if layer.path == path), None)
    reason = work.left.get(path, "")
    if path in work.folded:
        reason = f"folded into {work.folded[path]}"
    now = best.model.get_submodule(path).parameters(recurse=layer is not None)
    return LayerRow(
        path or "(model)",
        type(module).__name__,
        f"{layer.m} × {layer.k}" if layer is not None else _shape(module),
        sum(p.numel() for p in _parameters(module)),
        sum(p.numel() for p in now),
        products[0][path],
        products[1][path],
        best.changes.get(path, LayerChange()),
        reason,
    )


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    """Those of its own."""
    return [p for p in module._parameters.values() if p is not None]


def _shape(module: nn.Module) -> str:
    return ", ".join(" × ".join(map(str, p.shape)) for p in _parameters(module))


def _restore(network: nn.Module, small: nn.Module) -> None:
    """Training flags and `requires_grad` as the original has them; new modules take after what holds them."""
    flags = {path: module.training for path, module in network.named_modules(remove_duplicate=False)}
    asks = {
        name: parameter.requires_grad for name, parameter in network.named_parameters(remove_duplicate=False)
    }
    for path, module in small.named_modules(remove_duplicate=False):
        flags.setdefault(path, flags.get(path.rpartition(".")[0], network.training))
        module.training = flags[path]
    for name, parameter in small.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(asks.get(name, True))
