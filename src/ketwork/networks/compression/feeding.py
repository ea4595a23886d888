"""Whose units can be removed: which layers read them, each unit in columns of its own, found by what really happens.

NaN is put into some of a layer's units, and where it comes out is seen: at the inputs of the layers that read them
(where it is wiped off), in the columns of those units and in no others. Whatever is between, activations, pooling,
flattening, passes; what mixes units (attention, a normalisation, a sum with what another layer puts out that is read
elsewhere) does not, nor does what comes to the network's output by another way. No code is traced or interpreted,
so networks of any make will do. In the end the removal is tried: without some units, the network must put out what it
does where the layers that read them are blind to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.batches import Batch
from ketwork.networks.compression.calibration import picked
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.removal import staying
from ketwork.networks.compression.surgery import replace, same

_TRIED = 8  # samples on which a removal is tried
# What a network's code may say of NaN, or of fewer units than it reckons with: they are left to it then.
_REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

Rows = Callable[[nn.Module, Batch], Tensor]


class _NotSeparateError(Exception):
    """The units do not come to other layers each by itself."""


@dataclass(frozen=True)
class Feed:
    """Units that can be removed: the layers that put them out, and each unit's columns (units, b) in the readers.

    Several layers put out the same units where what they put out is added or multiplied, entry by entry.
    """

    sources: tuple[WeightLayer, ...]
    readers: dict[str, Tensor]

    @property
    def path(self) -> str:
        """The first of its sources."""
        return self.sources[0].path

    @property
    def units(self) -> int:
        """How many."""
        return self.sources[0].m


def feeds(model: nn.Module, layers: Sequence[WeightLayer], rows: Rows, batch: Batch) -> list[Feed]:
    """The layers whose units only other `layers` read, each unit by itself.

    `rows(model, batch)` are a network's predictions, samples first. Two samples a layer are run, and 2 log₂ units
    more of those that may be such a layer.
    """
    found = []
    for layer in layers:
        if layer.m < 2:
            continue
        units = torch.arange(layer.m)
        bits = max(1, (layer.m - 1).bit_length())
        coarse = (units % 2 == 0)[None]
        fine = torch.stack([(units >> i) % 2 == 0 for i in range(bits)])
        try:
            for codes in (coarse, fine):
                readers = _readers(model, layers, layer, torch.cat([codes, ~codes]), rows, batch)
            found.append(Feed((layer,), {path: _columns(code, fine) for path, code in readers.items()}))
        except (_NotSeparateError, *_REFUSALS):
            continue
    kinds = {layer.path: layer for layer in layers}
    found = [feed for feed in found if all(_whole(kinds[path], of) for path, of in feed.readers.items())]
    return _removable(
        model, kinds, _merged(found), rows, picked(batch, torch.arange(min(batch.size, _TRIED)))
    )


def staying_of(
    found: Sequence[Feed], units: Mapping[str, Tensor], layers: Mapping[str, WeightLayer]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows and the columns that stay of each layer that loses any, where these `units` of feeds stay, by path."""
    rows: dict[str, Tensor] = {}
    stay: dict[str, Tensor] = {}
    for feed in found:
        if feed.path in units:
            kept = units[feed.path]
            rows |= {layer.path: kept for layer in feed.sources}
            for path, columns in feed.readers.items():
                whole = torch.ones(layers[path].k, dtype=torch.bool)
                part = staying(columns, kept, layers[path].k)
                stay[path] = stay.get(path, whole) & torch.zeros_like(whole).index_fill(0, part, True)
    return rows, {path: mask.nonzero()[:, 0] for path, mask in stay.items()}


def _readers(
    model: nn.Module,
    layers: Sequence[WeightLayer],
    source: WeightLayer,
    codes: Tensor,
    rows: Rows,
    batch: Batch,
) -> dict[str, Tensor]:
    """For each layer that NaN came to whether it did, (samples, k), where sample i had it in the units of codes[i]."""
    count = len(codes)
    seen: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def spoil(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls[source.path] += 1
        mask = codes.to(output.device).repeat_interleave(len(output) // count, 0)
        mask = mask.reshape(len(mask), *[1] * (output.ndim - 2), source.m)
        return output.masked_fill(mask.movedim(-1, 1) if source.convolution else mask, torch.nan)

    def wipe(layer: WeightLayer) -> Callable[[nn.Module, Any], Any]:
        def hook(module: nn.Module, inputs: Any) -> Any:
            x = inputs[0]
            bad = x.isnan()
            if not bool(bad.any()):
                return None
            calls[layer.path] += 1
            seen[layer.path] = layer.rows_in(bad.float()).reshape(count, -1, layer.k).any(1).cpu()
            return (x.masked_fill(bad, 0), *inputs[1:])

        return hook

    handles = [layer.module.register_forward_pre_hook(wipe(layer)) for layer in layers]
    handles.append(source.module.register_forward_hook(spoil))
    try:
        with torch.no_grad():
            out = rows(model, picked(batch, torch.zeros(count, dtype=torch.long)))
    finally:
        for handle in handles:
            handle.remove()
    if (
        source.path in seen
        or not seen
        or any(n != 1 for n in calls.values())
        or not bool(out.isfinite().all())
    ):
        raise _NotSeparateError
    half = count // 2
    for came in seen.values():
        if bool((came[:half] & came[half:]).any()):  # a column that two units come to
            raise _NotSeparateError
    return seen


def _columns(came: Tensor, codes: Tensor) -> Tensor:
    """Each unit's columns (units, b), from where the units of `codes` (bits, units), then all the others, came to."""
    bits = len(codes)
    place = (2 ** torch.arange(bits))[:, None]
    names = (~came[:bits] * place).sum(0)[came.any(0)]
    columns = came.any(0).nonzero()[:, 0]
    units = codes.shape[1]
    counts = torch.bincount(names, minlength=units)
    if len(counts) != units or bool((counts != counts[0]).any()):
        raise _NotSeparateError
    columns = columns[names.argsort(stable=True)].reshape(units, -1)
    both = torch.cat([codes, ~codes])
    if bool((came[:, columns] != both[:, :, None]).any()):
        raise _NotSeparateError
    return columns


def _whole(layer: WeightLayer, columns: Tensor) -> bool:
    """Whether columns are whole channels of a convolution."""
    if not layer.convolution:
        return True
    area = layer.k // layer.module.in_channels
    if columns.shape[1] % area:
        return False
    channels = columns.reshape(len(columns), -1, area)
    return bool((channels == channels[..., :1] + torch.arange(area)).all())


def _merged(found: Sequence[Feed]) -> list[Feed]:
    """Feeds that share columns are one, or none where they do not share them unit by unit."""
    merged: list[Feed] = []
    apart: list[Feed]
    together: list[Feed]
    for feed in found:
        apart, together = [], [feed]
        for other in merged:
            shared = feed.readers.keys() & other.readers.keys()
            meet = any(bool(torch.isin(feed.readers[path], other.readers[path]).any()) for path in shared)
            (together if meet else apart).append(other)
        together = [*together[1:], feed]
        readers: dict[str, Tensor] = {}
        for one in together:
            readers |= one.readers
        alike = all(
            torch.equal(columns, readers[path]) for one in together for path, columns in one.readers.items()
        )
        sources = tuple(layer for one in together for layer in one.sources)
        merged = [*apart, Feed(sources, readers)] if alike else apart
    return merged


def _removable(
    model: nn.Module, layers: dict[str, WeightLayer], found: list[Feed], rows: Rows, batch: Batch
) -> list[Feed]:
    """Those whose removal does to the network what it should: all together, or else one by one."""

    def works(tried: Sequence[Feed]) -> bool:
        blind: dict[str, nn.Module] = {}
        small: dict[str, nn.Module] = {}
        half = {feed.path: torch.arange(0, feed.units, 2) for feed in tried}
        rows_of, columns_of = staying_of(tried, half, layers)
        for path in {*rows_of, *columns_of}:
            layer, kept = layers[path], columns_of.get(path)
            small[path] = layer.narrowed(rows_of.get(path), kept).module
            if kept is not None:
                weight = torch.zeros_like(layer.weight())
                weight[:, kept] = layer.weight()[:, kept]
                blind[path] = layer.with_weight(weight).module
        with torch.no_grad():
            wanted = _run(model, blind, layers, rows, batch)
            try:
                return same(wanted, _run(model, small, layers, rows, batch))
            except _REFUSALS:
                return False

    if not found or works(found):
        return found
    return [feed for feed in found if works([feed])]


def _run(
    model: nn.Module, modules: dict[str, nn.Module], layers: dict[str, WeightLayer], rows: Rows, batch: Batch
) -> Tensor:
    """What the network puts out with these modules in their places, for now."""
    try:
        replace(model, {name: module for path, module in modules.items() for name in layers[path].paths})
        return rows(model, batch)
    finally:
        replace(model, {name: layers[path].module for path in modules for name in layers[path].paths})
