"""What can be removed from between layers: which rows put it out and which columns read it, by what really happens.

A unit is a neuron, a channel, or an attention head: of a layer that puts it out one row or several, in each of the
layers that read it columns that nothing else comes to. NaN is put into some rows, and where it comes out is seen: at
the inputs of the layers that read it (where it is wiped off). One row that comes to as many columns as a whole head
has is a row of that head; queries, keys and values that come to the same columns are one unit. Whatever is between,
activations, pooling, flattening, attention within a head, passes; what mixes all rows (a normalisation, a sum with
what another layer puts out that is read elsewhere) does not, nor does what comes to the network's output by another
way. No code is traced or interpreted, so networks of any make will do. In the end the removal is tried: without some
units, the network must put out what it does where the layers that read them are blind to them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ketwork.networks.activations.batches import Batch
from ketwork.networks.compression.calibration import picked
from ketwork.networks.compression.elimination import staying
from ketwork.networks.compression.layers import WeightLayer
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
    """Units that can be removed: rows (units, a) of the layers that put them out, columns (units, b) of their readers.

    Both are by path. Several layers put out the same units where what they put out is added or multiplied, entry by
    entry, and where they are the queries, keys and values of attention heads.
    """

    sources: dict[str, Tensor]
    readers: dict[str, Tensor]

    @property
    def path(self) -> str:
        """The first of its sources."""
        return next(iter(self.sources))

    @property
    def units(self) -> int:
        """How many."""
        return len(self.sources[self.path])


def feeds(model: nn.Module, layers: Sequence[WeightLayer], rows: Rows, batch: Batch) -> list[Feed]:
    """The layers whose units only other `layers` read, each unit by itself.

    `rows(model, batch)` are a network's predictions, samples first. Two samples a layer are run, and 2 log₂ units
    more of those that may be such a layer.
    """
    found = []
    for layer in layers:
        try:
            found.append(_feed(model, layers, layer, rows, batch))
        except (_NotSeparateError, *_REFUSALS):
            continue
    kinds = {layer.path: layer for layer in layers}
    found = [
        feed
        for feed in _merged(found)
        if all(_whole(kinds[path], columns) for path, columns in feed.readers.items())
    ]
    return _removable(model, kinds, found, rows, picked(batch, torch.arange(min(batch.size, _TRIED))))


def staying_of(
    found: Sequence[Feed], units: Mapping[str, Tensor], layers: Mapping[str, WeightLayer]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows and the columns that stay of each layer that loses any, where these `units` of feeds stay, by path."""
    rows: dict[str, Tensor] = {}
    stay: dict[str, Tensor] = {}
    for feed in found:
        if feed.path in units:
            kept = units[feed.path]
            rows |= {path: own[kept].flatten().sort().values for path, own in feed.sources.items()}
            for path, columns in feed.readers.items():
                whole = torch.ones(layers[path].k, dtype=torch.bool)
                part = staying(columns, kept, layers[path].k)
                stay[path] = stay.get(path, whole) & torch.zeros_like(whole).index_fill(0, part, True)
    return rows, {path: mask.nonzero()[:, 0] for path, mask in stay.items()}


def _feed(
    model: nn.Module, layers: Sequence[WeightLayer], source: WeightLayer, rows: Rows, batch: Batch
) -> Feed:
    """The layer's units, and the columns that each comes to.

    How many rows a unit has is told by how many columns the first row comes to, of those that all come to.
    """
    first = torch.arange(source.m)[None] == 0
    came = _reached(model, layers, source, torch.cat([first, ~first]), rows, batch)
    counts = {int(to.any(0).sum()) / max(int(to[0].sum()), 1) for to in came.values()}
    count = int(min(counts))
    if counts != {count} or count < 2 or source.m % count:
        raise _NotSeparateError
    own = torch.arange(source.m).reshape(count, -1)
    bits = (count - 1).bit_length()
    codes = torch.stack([(torch.arange(count) >> i) % 2 == 0 for i in range(bits)])
    both = torch.cat([codes, ~codes])
    came = _reached(model, layers, source, both.repeat_interleave(own.shape[1], 1), rows, batch)
    return Feed({source.path: own}, {path: _columns(to, both) for path, to in came.items()})


def _reached(
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
        # Fused attention kernels may drop NaN, as some processors' instructions for the larger of two numbers do.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
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
    return seen


def _columns(came: Tensor, codes: Tensor) -> Tensor:
    """Each unit's columns (units, b), from where the units of `codes` came to, half of them the others' opposites."""
    bits = len(codes) // 2
    place = (2 ** torch.arange(bits))[:, None]
    names = (~came[:bits] * place).sum(0)[came.any(0)]
    columns = came.any(0).nonzero()[:, 0]
    units = codes.shape[1]
    counts = torch.bincount(names, minlength=units)
    if len(counts) != units or bool((counts != counts[0]).any()):
        raise _NotSeparateError
    columns = columns[names.argsort(stable=True)].reshape(units, -1)
    if bool((came[:, columns] != codes[:, :, None]).any()):  # a column that two units come to, or none
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
    """Feeds that come to the same columns are one, its units the rows and columns that hang together.

    They are none where these are not alike in number.
    """
    hanging = DisjointSet()
    for feed in found:
        for unit, rows in enumerate(feed.sources[feed.path].tolist()):
            nodes = [("row", feed.path, row) for row in rows]
            for path, columns in feed.readers.items():
                nodes += [("column", path, column) for column in columns[unit].tolist()]
            for node in nodes:
                hanging.add(node)
                hanging.merge(nodes[0], node)
    groups: dict[tuple[str, ...], list[dict[tuple[str, str], list[int]]]] = defaultdict(list)
    for nodes in hanging.subsets():
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for kind, path, place in sorted(nodes):
            places[kind, path].append(place)
        groups[tuple(feed.path for feed in found if ("row", feed.path) in places)].append(places)
    rows_of = {feed.path: feed.sources[feed.path].numel() for feed in found}
    merged = []
    for paths, units in groups.items():
        sizes = [{key: len(own) for key, own in unit.items()} for unit in units]
        all_rows = all(size["row", path] * len(units) == rows_of[path] for size in sizes for path in paths)
        if len(units) < 2 or not all_rows or any(size != sizes[0] for size in sizes):
            continue
        units.sort(key=lambda unit: unit["row", paths[0]])
        tensors = {key: torch.tensor([unit[key] for unit in units]) for key in units[0]}
        readers = {path: own for (kind, path), own in tensors.items() if kind == "column"}
        merged.append(Feed({path: tensors["row", path] for path in paths}, readers))
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
