"""The account of a smaller network: what became of each module, what was measured, and what makes it unsure."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from ketwork.networks.activations import is_placed
from ketwork.networks.compression.candidates import DEAD, Candidate, LayerChange
from ketwork.networks.compression.costs import Costs, bytes_of, latencies, multiply_adds_within, parameters
from ketwork.networks.compression.description import described
from ketwork.networks.compression.pretrained import configure
from ketwork.networks.compression.result import Compressed, LayerRow, Tried
from ketwork.networks.compression.search import Work
from ketwork.networks.compression.surgery import copied, sharing
from ketwork.networks.compression.unit_discovery import FIXED, LOST

_NAMED = 3  # layers that a warning names
_WIDE = "a layer that reads its units is not compressed, or reads too many features"
_CERTAIN = 0.995  # mean probability of the predicted class from which a KL says little of other data


def recorded(
    network: nn.Module, work: Work, best: Candidate, tried: Sequence[Tried], settings: dict[str, Any]
) -> Compressed:
    """The result of that candidate; `network` is the original, as it was given."""
    calibration = work.calibration
    original = copied(sharing(network) if is_placed(network) else network)  # these share nothing
    small = copied(best.model)
    small = copied(work.apart.together(small, work.base, best.model))
    replaced = described(network, small)
    if config := configure(network, small):
        settings = {**settings, "config": config}
    kl = work.estimate(best)
    if in_own_precision(
        network, small
    ):  # what was fitted in float32 is given, and measured, as the original is
        calibration.remember(original, work.memory)
        kl = calibration.estimate(small)
    batch, passes = calibration.fit[0], calibration.passes
    calls = [partial(calibration.output, model, batch) for model in (original, small)]
    times = latencies(calls)
    own = {path: module for path, module in network.named_modules() if own_parameters(module)}
    places = {path for path, _ in small.named_modules(remove_duplicate=False)}
    products = [
        multiply_adds_within(
            call, batch.size, {path: model.get_submodule(path) for path in own if path and path in places}
        )
        for model, call in zip((original, small), calls, strict=True)
    ]
    before, after = (
        Costs(parameters(model), counts[""], seconds, bytes_of(model))
        for model, counts, seconds in zip((original, small), products, times, strict=True)
    )
    rows = tuple(_row(path, module, own, work, best, products) for path, module in own.items())
    restore_flags(network, small)
    return Compressed(
        small,
        rows,
        tuple(tried),
        best.name,
        before,
        after,
        kl.value,
        passes,
        settings,
        replaced,
        _warnings(work, best),
        kl.stderr,
    )


def _warnings(work: Work, best: Candidate) -> tuple[str, ...]:
    matches = []
    calibration = work.calibration
    if calibration.constant:
        matches.append(
            "The original predicts the same for all data held back, so the KL says nothing of other data."
        )
    elif calibration.certainty > _CERTAIN:
        matches.append(
            f"The original is nearly certain of the data held back (mean probability {calibration.certainty:.4f}), as "
            "networks are of data that they were trained on: on other data the KL can be many times larger. Calibrate "
            "on data that it was not trained on."
        )
    few = [
        f"{layer.path} ({rows:,} for {layer.k:,})"
        for layer in work.layers
        if not best.changes[layer.path].unchanged and (rows := work.survey.layers[layer.path].rows) < layer.k
    ]
    if few:
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        matches.append(
            f"Fewer inputs than features were seen of {', '.join(few[:_NAMED])}{more}: other data will fare worse. "
            "Give more."
        )
    return (*matches, *_staying(work))


def _staying(work: Work) -> list[str]:
    """What is said of units that could not be removed: where there are none at all, or some were lost sight of."""
    reasons = {
        layer.path: work.staying.get(layer.path, _WIDE)
        for layer in work.layers
        if layer.path not in work.trimmed.notes
    }
    if work.narrowing.feeds or work.trimmed.units or len(reasons) == 1:
        reasons = {path: reason for path, reason in reasons.items() if reason == LOST}
        start = "No units were removed of some layers"
    else:
        start = (
            "No neurons, channels or attention heads that can be removed were found, so ranks alone were cut"
        )
    if not reasons:
        return []
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    named = "; ".join(f"{path}: {reason}" for path, reason in list(reasons.items())[:_NAMED])
    return [f"{start} ({named}{more})."]


def _row(
    path: str,
    module: nn.Module,
    own: Collection[str],
    work: Work,
    best: Candidate,
    products: Sequence[dict[str, float]],
) -> LayerRow:
    """What became of one module that had parameters of its own."""
    layer = next((part for layer in work.layers for part in layer.parts if path in part.paths), None)
    name = path if layer is None else layer.path
    reason = work.left.get(path, "")
    if path in work.folded:
        reason = f"folded into {work.folded[path]}"
    inside = {p: one for p, one in best.changes.items() if path and p.startswith(f"{path}.")}
    if path in work.apart.originals:
        inner = {p: one for p, one in inside.items() if p not in own}
        apart = best.model.get_submodule(path)
        elsewhere = {p.removeprefix(f"{path}.") for p in own if p.startswith(f"{path}.")}
        now = [p for name, p in apart.named_parameters() if not _within(name, elsewhere)]
        change, reason = _summed(path, inner), reason or "; ".join(_reported(path, inner))
    else:
        now = list(best.model.get_submodule(path).parameters(recurse=layer is not None))
        change = best.changes.get(name, LayerChange())
        if work.staying.get(name) == FIXED:
            change = replace(
                change, note="; ".join(filter(None, [change.note, f"no units removed: {FIXED}"]))
            )
    return LayerRow(
        path or "(model)",
        type(module).__name__,
        "{} × {}".format(*work.trimmed.shapes.get(name, (layer.m, layer.k)))
        if layer is not None
        else _shape(module),
        sum(p.numel() for p in own_parameters(module)),
        sum(p.numel() for p in now),
        products[0].get(path, products[0][""]),
        products[1].get(path, products[1][""]),
        change,
        reason,
        change.form.described(layer.kernel) if layer is not None else "",
    )


def _within(name: str, paths: Container[str]) -> bool:
    """Whether a parameter is of one of these modules or within it."""
    parts = name.split(".")[:-1]
    return any(".".join(parts[: i + 1]) in paths for i in range(len(parts)))


def _summed(path: str, inner: Mapping[str, LayerChange]) -> LayerChange:
    """What became of a module whose matrices were layers of their own, in one."""
    return LayerChange(
        kl_increase=sum(one.kl_increase for one in inner.values()),
        note=next((one.note for one in inner.values() if one.note.startswith(DEAD)), ""),
        unchanged=all(one.unchanged for one in inner.values()),
    )


def _reported(path: str, inner: Mapping[str, LayerChange]) -> list[str]:
    """What became of each of its matrices that changed, in words."""
    matches = []
    for name, one in inner.items():
        words = [*([f"rank {one.rank}"] if one.rank is not None else []), *([one.note] if one.note else [])]
        if one.rank is not None or one.units is not None or "truncated" in one.note:
            matches.append(f"{name.removeprefix(f'{path}.')}: {', '.join(words)}")
    return matches or ["left dense"]


def in_own_precision(network: nn.Module, small: nn.Module) -> bool:
    """Gives the smaller network the precision of the original; whether it had another."""
    dtypes = [{p.dtype for p in model.parameters() if p.is_floating_point()} for model in (network, small)]
    if len(dtypes[0]) != 1 or dtypes[0] == dtypes[1]:
        return False
    small.to(dtypes[0].pop())
    return True


def own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module itself."""
    return [p for p in module._parameters.values() if p is not None]


def _shape(module: nn.Module) -> str:
    return ", ".join(" × ".join(map(str, p.shape)) for p in own_parameters(module))


def restore_flags(network: nn.Module, small: nn.Module) -> None:
    """Training flags and `requires_grad` as the original has them; new modules take after what holds them."""
    flags = {path: module.training for path, module in network.named_modules(remove_duplicate=False)}
    asks = {
        name: parameter.requires_grad for name, parameter in network.named_parameters(remove_duplicate=False)
    }
    for path, module in small.named_modules(remove_duplicate=False):
        flags.setdefault(path, flags.get(path.rpartition(".")[0], network.training))
        module.training = flags[path]
    for name, parameter in small.named_parameters(remove_duplicate=False):
        if parameter.is_floating_point():
            parameter.requires_grad_(asks.get(name, True))
