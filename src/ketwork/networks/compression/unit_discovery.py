"""What can be removed from between layers: which rows put it out and which columns read it, by what really happens.

A unit is a neuron, a channel, or an attention head: of a layer that puts it out one row or several, in each of the
layers that read it columns that nothing else comes to. NaN is put into some rows, and where it comes out is seen: at
the inputs of the layers that read it (where it is wiped off), and at what works channel by channel in between, which
must become smaller too. One row that comes to as many columns as a whole head has is a row of that head; queries, keys
and values that come to the same columns are one unit. Whatever is between, activations, pooling, flattening, attention
within a head, passes; what mixes all rows (a normalisation, a sum with what another layer puts out that is read
elsewhere) does not, nor does what comes to the network's output by another way. No code is traced or interpreted, so
networks of any make will do. In the end the removal is tried: without some units, the network must put out what it does
where the layers that read them are blind to them.

NaN must pass for this, and torch's fused attention on processors takes a query all of whose scores are NaN for one
that may see nothing, and gives 0, where there are fewer keys than its vectors have numbers (16 with AVX-512, 8
without): attention runs unfused here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ketwork.networks.activations import Batch
from ketwork.networks.compression import carriers as between
from ketwork.networks.compression.calibration import Rows, picked
from ketwork.networks.compression.carriers import Carrier
from ketwork.networks.compression.layers import WeightLayer
from ketwork.networks.compression.surgery import replace, resized, same
from ketwork.networks.compression.unit_blocks import Blocks
from ketwork.networks.compression.unit_codes import MIXED, NotSeparateError, codes_of, places_of
from ketwork.networks.compression.unit_feeds import Feed, Staying, staying_of

_TRIED = 8  # samples on which a removal is tried
# Why units cannot be removed
LOST = "neither another layer nor the output shows NaN that is put into it"
OUTPUT = "the network's output depends on it by another way than through layers"
REPEATED = "it, or a layer that reads it, runs more than once"
UNEVEN = "its units do not come to the layers that read them in equal and complete parts"
FIXED = "the network does not run as it should without some of its units"
# What a network's code may say of NaN, or of fewer units than it reckons with: they are left to it then.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

Call = Callable[[nn.Module, Batch], Rows]


def feeds(
    model: nn.Module, layers: Sequence[WeightLayer], call: Call, batch: Batch, repeat: bool = True
) -> tuple[list[Feed], dict[str, str]]:
    """The layers whose units only other `layers` read, each unit by itself; and why not those of the rest, by path.

    `call(model, batch)` are a network's predictions. Two samples a layer are run, and 2 log₂ units more of those
    that may be such a layer. With `repeat`, what is found in one of several blocks that are alike is expected in the
    others; it is tried like all else, and where it does not hold, each is looked into.
    """
    trace = _Trace(model, layers, call, batch)
    kinds = {layer.path: layer for layer in layers}
    blocks = Blocks(model, kinds, trace.known)
    result, why = [], {}
    expected = set()
    for layer in layers:
        finding = blocks.expected(layer.path) if repeat else None
        if finding is None:
            finding = trace.finding(layer)
            blocks.note(layer.path, finding)
        else:
            expected.add(layer.path)
        if isinstance(finding, str):
            why[layer.path] = finding
        else:
            result.append(finding)
    if not result:
        return [], why
    tried = picked(batch, torch.arange(min(batch.size, _TRIED)))
    merged = _merged(result, [])
    good = _removable(model, kinds, merged, call, tried)
    if len(good) < len(merged):  # what is in between may have numbers for each channel that no class tells of
        sizes = {
            size for feed in result for size in (feed.units, *(c.numel() for c in feed.readers.values()))
        }
        shifts = list(trace.raw(between.raw(model, sizes)))
        if shifts:
            merged = _merged(result, shifts)
            good = _removable(model, kinds, merged, call, tried)
    for some, reason in ((result, UNEVEN), (merged, FIXED)):
        why |= {path: reason for feed in some for path in feed.sources}
    removable = {path for feed in good for path in feed.sources}
    if removable and expected & {path for feed in result for path in feed.sources} - removable:
        return feeds(model, layers, call, batch, repeat=False)
    return good, {path: reason for path, reason in why.items() if path not in removable}


@dataclass
class _Trace:
    """Where NaN goes in a network, from a layer's outputs or from a parameter's entries."""

    model: nn.Module
    layers: Sequence[WeightLayer]
    call: Call
    batch: Batch
    known: dict[str, Carrier] = field(init=False)

    def __post_init__(self) -> None:
        self.known = between.by_class(self.model)

    def finding(self, source: WeightLayer) -> Feed | str:
        """The layer's units, or why none can be removed."""
        try:
            return self.feed(source)
        except NotSeparateError as error:
            return str(error)
        except REFUSALS as error:
            return f"NaN in its output makes the network raise {type(error).__name__}"

    def feed(self, source: WeightLayer) -> Feed:
        """The layer's units, and the columns that each comes to.

        How many rows a unit has is known by how many columns the first row comes to, of those that all come to.
        """
        first = torch.arange(source.m)[None] == 0
        seen, _ = self._from_layer(source, torch.cat([first, ~first]))
        counts = {int(to.any(0).sum()) / max(int(to[0].sum()), 1) for to in seen.values()}
        count = int(min(counts))
        if counts != {count} or count < 2 or source.m % count:
            raise NotSeparateError(MIXED)
        own = torch.arange(source.m).reshape(count, -1)
        codes = codes_of(count)
        seen, passed = self._from_layer(source, codes.repeat_interleave(own.shape[1], 1))
        readers = {path: self._columns(path, places_of(to, codes)) for path, to in seen.items()}
        carriers = {self.known[path]: places_of(to, codes) for path, to in passed.items()}
        return Feed({source.path: own}, readers, carriers)

    def raw(self, candidates: Sequence[Carrier]) -> Iterator[tuple[Carrier, dict[str, Tensor]]]:
        """Each parameter whose entries come to columns of layers, one by one, with these columns (entries, b)."""
        for carrier in candidates:
            module = self.model.get_submodule(carrier.path)
            original: Any = module._parameters[carrier.name]
            codes = codes_of(carrier.channels)
            parts: list[dict[str, Tensor]] = []
            try:
                for code in codes:
                    spoiled = original.detach().masked_fill(
                        code.to(original.device).view_as(original), torch.nan
                    )
                    module._parameters[carrier.name] = nn.Parameter(spoiled, requires_grad=False)
                    parts.append(self._run(1, lambda: None)[0])
                paths = parts[0].keys()
                if not paths or any(part.keys() != paths for part in parts):
                    continue
                yield (
                    carrier,
                    {
                        path: self._columns(path, places_of(torch.cat([part[path] for part in parts]), codes))
                        for path in paths
                    },
                )
            except (NotSeparateError, *REFUSALS):
                continue
            finally:
                module._parameters[carrier.name] = original

    def _columns(self, path: str, channels: Tensor) -> Tensor:
        """The columns of W that are these channels of the layer's input."""
        layer = next(layer for layer in self.layers if layer.path == path)
        area = prod(layer.kernel)
        return (channels[..., None] * area + torch.arange(area)).flatten(1)

    def _from_layer(self, source: WeightLayer, codes: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Where NaN comes to, where sample i has it in the rows of codes[i]; as many samples at once as a batch has."""
        parts = codes.split(self.batch.size)
        runs = [self._at_once(source, part) for part in parts]
        sizes = [len(part) for part in parts]
        seen, passed = (_stacked([run[i] for run in runs], sizes) for i in range(2))
        if not seen:
            raise NotSeparateError(LOST)
        return seen, passed

    def _at_once(self, source: WeightLayer, codes: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        count = len(codes)
        calls: Counter[str] = Counter()

        def spoil(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            calls[source.path] += 1
            mask = codes.to(output.device).repeat_interleave(len(output) // count, 0)
            mask = mask.reshape(len(mask), *[1] * (output.ndim - 2), source.m)
            return output.masked_fill(mask.movedim(-1, 1) if source.convolution else mask, torch.nan)

        handles: list[Any] = []
        try:
            result = self._run(count, lambda: handles.append(source.module.register_forward_hook(spoil)))
        finally:
            for handle in handles:
                handle.remove()
        if (source.path in result[0] or calls[source.path] != 1) and not source.repeated:
            raise NotSeparateError(REPEATED)
        return result

    def _run(self, count: int, prepare: Callable[[], Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """For layers and carriers that NaN came to whether it did, (samples, channels), of `count` equal samples."""
        seen: dict[str, Tensor] = {}
        passed: dict[str, Tensor] = {}
        calls: Counter[str] = Counter()

        def wipe(layer: WeightLayer) -> Callable[[nn.Module, Any], Any]:
            def hook(module: nn.Module, inputs: Any) -> Any:
                x = inputs[0]
                if layer.looks_up:
                    return None
                bad = x.isnan()
                if not bool(bad.any()):
                    return None
                calls[layer.path] += not layer.repeated
                channels = bad.movedim(1, -1) if layer.convolution else bad
                came = channels.reshape(count, -1, layer.channels).any(1).cpu()
                seen[layer.path] = seen.get(layer.path, torch.zeros_like(came)) | came
                return (x.masked_fill(bad, 0), *inputs[1:])

            return hook

        def note(carrier: Carrier) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim > 1 and bool((bad := output.isnan()).any()):
                    calls[carrier.path] += 1
                    rows = bad.movedim(1, -1).reshape(count, -1, output.shape[1]).any(1).cpu()
                    passed[carrier.path] = rows

            return hook

        handles = [layer.module.register_forward_pre_hook(wipe(layer)) for layer in self.layers]
        for path, carrier in self.known.items():
            handles.append(self.model.get_submodule(path).register_forward_hook(note(carrier)))
        try:
            prepare()
            # Fused attention kernels may drop NaN, as some processors' instructions for the larger of two numbers do.
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                rows = self.call(self.model, picked(self.batch, torch.zeros(count, dtype=torch.long)))
        finally:
            for handle in handles:
                handle.remove()
        if not all(bool(part.isfinite().all()) for part in rows):
            raise NotSeparateError(OUTPUT)
        if any(n > 1 for n in calls.values()):
            raise NotSeparateError(REPEATED)
        return seen, passed


def _stacked(parts: Sequence[dict[str, Tensor]], sizes: Sequence[int]) -> dict[str, Tensor]:
    """The rows of all parts by path, none of them set in a part that lacks the path."""
    like = {path: rows for part in parts for path, rows in part.items()}
    return {
        path: torch.cat(
            [
                part.get(path, rows.new_zeros(size, rows.shape[1]))
                for part, size in zip(parts, sizes, strict=True)
            ]
        )
        for path, rows in like.items()
    }


def _merged(result: Sequence[Feed], shifts: Sequence[tuple[Carrier, dict[str, Tensor]]]) -> list[Feed]:
    """Feeds that come to the same columns are one, its units the rows and columns that hang together.

    They are none where these are not alike in number. `shifts` are parameters with the columns that their entries
    come to.
    """
    from scipy.cluster.hierarchy import DisjointSet  # slow to import

    hanging = DisjointSet()

    def join(nodes: list[tuple[Any, ...]]) -> None:
        for node in nodes:
            hanging.add(node)
            hanging.merge(nodes[0], node)

    for feed in result:
        parts: list[tuple[str, Any, Tensor]] = [("row", path, own) for path, own in feed.sources.items()]
        parts += [("column", path, own) for path, own in feed.readers.items()]
        parts += [("channel", carrier, own) for carrier, own in feed.carriers.items()]
        for unit in range(feed.units):
            join([(kind, path, place) for kind, path, own in parts for place in own[unit].tolist()])
    known = {node[1] for node in hanging if node[0] == "column"}
    for carrier, columns in shifts:
        if columns.keys() <= known:
            for entry in range(carrier.channels):
                nodes = [("column", p, place) for p, own in columns.items() for place in own[entry].tolist()]
                join([("channel", carrier, entry), *nodes])
    groups: dict[tuple[str, ...], list[dict[tuple[str, Any], list[int]]]] = defaultdict(list)
    for nodes in hanging.subsets():
        places: dict[tuple[str, Any], list[int]] = defaultdict(list)
        for kind, path, place in sorted(nodes, key=lambda node: (node[0], str(node[1]), node[2])):
            places[kind, path].append(place)
        groups[tuple(feed.path for feed in result if ("row", feed.path) in places)].append(places)
    rows_of = {feed.path: feed.sources[feed.path].numel() for feed in result}
    merged = []
    for paths, units in groups.items():
        sizes = [{key: len(own) for key, own in unit.items()} for unit in units]
        all_rows = all(size["row", path] * len(units) == rows_of[path] for size in sizes for path in paths)
        if not paths or len(units) < 2 or not all_rows or any(size != sizes[0] for size in sizes):
            continue
        units.sort(key=lambda unit: unit["row", paths[0]])
        tensors = {key: torch.tensor([unit[key] for unit in units]) for key in units[0]}
        readers = {path: own for (kind, path), own in tensors.items() if kind == "column"}
        carriers = {carrier: own for (kind, carrier), own in tensors.items() if kind == "channel"}
        merged.append(Feed({path: tensors["row", path] for path in paths}, readers, carriers))
    return merged


def _removable(
    model: nn.Module, layers: dict[str, WeightLayer], result: list[Feed], call: Call, batch: Batch
) -> list[Feed]:
    """Those whose removal does to the network what it should: all together, or else one by one."""

    def works(tried: Sequence[Feed]) -> bool:
        half = {feed.path: torch.arange(0, feed.units, 2) for feed in tried}
        stay = staying_of(tried, half, layers)
        blind: dict[str, nn.Module] = {}
        small: dict[str, nn.Module] = {}
        for path in {*stay.rows, *stay.columns}:
            layer, kept = layers[path], stay.columns.get(path)
            small[path] = layer.narrowed(stay.rows.get(path), kept).module
            if kept is not None:
                weight = torch.zeros_like(layer.weight())
                weight[:, kept] = layer.weight()[:, kept]
                blind[path] = layer.with_weight(weight).module
        try:
            small |= smaller_carriers(model, stay)
            with torch.no_grad():
                with _in_place(model, blind, layers):
                    wanted = call(model, batch)
                with _in_place(model, small, layers):
                    got = call(model, batch)
            return all(same(a, b) for a, b in zip(wanted, got, strict=True))
        except REFUSALS:
            return False

    if not result or works(result):
        return result
    return [feed for feed in result if works([feed])]


def smaller_carriers(model: nn.Module, stay: Staying) -> dict[str, nn.Module]:
    """What works channel by channel with fewer channels, by path."""
    small: dict[str, nn.Module] = {}
    for carrier, kept in stay.carriers.items():
        module = small.get(carrier.path, model.get_submodule(carrier.path))
        small[carrier.path] = between.narrowed(module, carrier.name, kept)
    return small


@contextmanager
def _in_place(
    model: nn.Module, modules: dict[str, nn.Module], layers: dict[str, WeightLayer]
) -> Iterator[None]:
    """The network with these modules in their places, for now."""
    paths = {path: layers[path].paths if path in layers else (path,) for path in modules}
    before = {path: model.get_submodule(path) if path else resized(model, {}) for path in modules}
    # What holds others comes first, so that the others take their places within it.
    for path in sorted(modules, key=lambda p: p.count(".")):
        replace(model, dict.fromkeys(paths[path], modules[path]))
    try:
        yield
    finally:
        for path in sorted(modules, key=lambda p: -p.count(".")):
            replace(model, dict.fromkeys(paths[path], before[path]))
